"""The JSON files of a checkpoint: what its model, its processor and its adapters are."""

from __future__ import annotations

from typing import Any

from tests.tiny_phi4.sizes import FULL, MEL_BINS, VOCABULARY, Audio, Decoder, Sizes, Vision
from tests.tiny_phi4.tokenizer import END, END_OF_TEXT

#: The layers an adapter changes, as a pattern over their names.
ADAPTED = r"layers.*((self_attn\.(qkv_proj|o_proj))|(mlp\.(gate_up|down)_proj))"
GENERATION = {"bos_token_id": END_OF_TEXT, "eos_token_id": [END, END_OF_TEXT], "pad_token_id": END_OF_TEXT}


def model_config(sizes: Sizes) -> dict[str, Any]:
    """config.json; `tiny_vision_tower` is ours and read by the plugin, since vLLM knows one size of the tower alone."""
    config = {
        "architectures": ["Phi4MMForCausalLM"],
        "auto_map": {"AutoConfig": "configuration_phi4mm.Phi4MMConfig"},
        "model_type": "phi4mm",
        "torch_dtype": "bfloat16",
        **decoder_config(sizes.decoder),
        "rope_theta": 10_000.0,
        "partial_rotary_factor": 0.75,
        "rope_scaling": rope_scaling(sizes.decoder),
        "img_processor": None,
        "vision_lora": _lora(sizes.vision_rank),
        "speech_lora": _lora(sizes.speech_rank),
        "embd_layer": EMBEDDING,
        "audio_processor": {"name": "cascades", "config": _audio(sizes.audio)},
    }
    return config if sizes.vision == FULL.vision else {**config, "tiny_vision_tower": vision_config(sizes.vision)}


def decoder_config(decoder: Decoder) -> dict[str, Any]:
    """The fields of the language model that both model classes share."""
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": decoder.hidden,
        "intermediate_size": decoder.intermediate,
        "num_hidden_layers": decoder.layers,
        "num_attention_heads": decoder.heads,
        "num_key_value_heads": decoder.kv_heads,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 131_072,
        "original_max_position_embeddings": 4_096,
        "sliding_window": 262_144,
        "tie_word_embeddings": True,
        "bos_token_id": END_OF_TEXT,
        "eos_token_id": END_OF_TEXT,
        "pad_token_id": END_OF_TEXT,
    }


def rope_scaling(decoder: Decoder) -> dict[str, Any]:
    """The rotary embedding's factors up to 4096 tokens and beyond."""
    return {
        "type": "longrope",
        "short_factor": [1.0] * len(decoder.long_factors),
        "long_factor": [float(factor) for factor in decoder.long_factors],
    }


def vision_config(vision: Vision) -> dict[str, int]:
    """The image tower's sizes, as SigLIP names them."""
    return {
        "hidden_size": vision.hidden,
        "intermediate_size": vision.intermediate,
        "num_attention_heads": vision.heads,
        "num_hidden_layers": vision.layers,
    }


EMBEDDING = {
    "embedding_cls": "image_audio",
    "image_embd_layer": {
        "crop_size": 448,
        "embedding_cls": "tune_image",
        "hd_transform_order": "sub_glb",
        "image_token_compression_cls": "avg_pool_2d",
        "projection_cls": "mlp",
        "use_hd_transform": True,
        "with_learnable_separator": True,
    },
    "audio_embd_layer": {
        "compression_rate": 8,
        "downsample_rate": 1,
        "embedding_cls": "audio",
        "projection_cls": "mlp",
        "use_conv_downsample": False,
        "use_qformer": False,
    },
}


def _audio(audio: Audio) -> dict[str, Any]:
    return {
        "activation": "swish",
        "attention_dim": audio.hidden,
        "attention_heads": audio.heads,
        "batch_norm": False,
        "bias_in_glu": True,
        "causal": True,
        "chunk_size": -1,
        "cnn_layer_norm": True,
        "conv_activation": "swish",
        "conv_glu_type": "swish",
        "depthwise_multiplier": 1,
        "depthwise_seperable_out_channel": audio.hidden,
        "dropout_rate": 0.0,
        "encoder_embedding_config": {"input_size": MEL_BINS},
        "ext_pw_kernel_size": 1,
        "ext_pw_out_channel": audio.hidden,
        "input_layer": "nemo_conv",
        "input_size": MEL_BINS,
        "kernel_size": 3,
        "left_chunk": 18,
        "linear_units": audio.linear,
        "nemo_conv_settings": {"conv_channels": audio.conv_channels},
        "num_blocks": audio.blocks,
        "relative_attention_bias_args": {"t5_bias_max_distance": 500, "type": "t5"},
        "time_reduction": 8,
    }


def _lora(rank: int) -> dict[str, Any]:
    return {"dp": 0.0, "lora_alpha": 2 * rank, "r": rank, "layer": ADAPTED}


def processor_config(sizes: Sizes) -> dict[str, Any]:
    """preprocessor_config.json."""
    return {
        "auto_map": {"AutoProcessor": "processing_phi4mm.Phi4MMProcessor"},
        "processor_class": "Phi4MMProcessor",
        "dynamic_hd": sizes.dynamic_hd,
        "audio_compression_rate": 8,
    }


def adapter_config(rank: int) -> dict[str, Any]:
    """adapter_config.json."""
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": "",
        "bias": "none",
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "target_modules": ADAPTED,
        "inference_mode": True,
        "modules_to_save": [],
        "fan_in_fan_out": False,
    }
