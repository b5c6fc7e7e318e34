"""Writes the tiny checkpoint for transformers' own class: the same weights, adapters and words as the one for vLLM."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import Phi4MultimodalConfig, Phi4MultimodalForCausalLM

from tests.tiny_phi4.config import GENERATION, decoder_config, rope_scaling, vision_config
from tests.tiny_phi4.make import REMOTE_CODE, write_adapters, write_json
from tests.tiny_phi4.sizes import TINY, Audio, Sizes
from tests.tiny_phi4.tokenizer import AUDIO, CONTROL, IMAGE, write_tokenizer
from tests.tiny_phi4.weights import Tensors, model_weights

#: What transformers calls the weights of the published checkpoint.
_NAMES = {
    r"\.base_layer": "",
    r"glb_GN": "global_img_feature_extensor",
    r"sub_GN": "sub_img_feature_extensor",
    r"img_projection\.0": "img_projection_up",
    r"img_projection\.2": "img_projection_down",
    r"audio_projection\.speech\.0": "up_proj_for_speech",
    r"audio_projection\.speech\.2": "down_proj_for_speech",
    r"audio_projection\.vision\.0": "up_proj_for_vision_speech",
    r"audio_projection\.vision\.2": "down_proj_for_vision_speech",
    r"linear_out": "o_proj",
    r"linear_(q|k|v)": r"\1_proj",
    r"net\.0\.linear": "gate_up_proj",
    r"net\.2": "down_proj",
}
#: Weights that the class has and never uses.
_POOLING_HEAD = "img_processor.head."


def make_native_tiny(folder: Path, *, seed: int = 0, sizes: Sizes = TINY) -> Path:
    """Write a checkpoint for `Phi4MultimodalForCausalLM` and `AutoProcessor`; returns `folder`.

    Its image processor is code in the checkpoint (`trust_remote_code`), since transformers' own one needs torchvision.
    """
    torch.manual_seed(seed)
    model = Phi4MultimodalForCausalLM(_config(sizes))
    missing, unknown = model.load_state_dict(_renamed(model_weights(sizes, seed)), strict=False)
    assert not unknown, unknown
    assert all(_POOLING_HEAD in name or name == "lm_head.weight" for name in missing), missing
    model.to(torch.bfloat16).save_pretrained(folder)
    write_json(folder / "generation_config.json", GENERATION)
    write_json(folder / "preprocessor_config.json", _processor_config(sizes))
    words = {"<|image|>": IMAGE, "<|audio|>": AUDIO}
    control = {token: number for token, number in CONTROL.items() if number not in words.values()} | words
    write_tokenizer(folder, control, extra_special_tokens={"image_token": "<|image|>", "audio_token": "<|audio|>"})
    for name in ("image_processing_phi4mm.py", "crops_phi4mm.py"):
        shutil.copy(REMOTE_CODE / name, folder)
    write_adapters(folder, sizes, seed)
    return folder


def _renamed(weights: Tensors) -> Tensors:
    renamed = {}
    for name, tensor in weights.items():
        if ".lora_" not in name:
            for pattern, replacement in _NAMES.items():
                name = re.sub(pattern, replacement, name)
            renamed[name] = tensor
    return renamed


def _config(sizes: Sizes) -> Phi4MultimodalConfig:
    return Phi4MultimodalConfig(
        **decoder_config(sizes.decoder) | {"eos_token_id": GENERATION["eos_token_id"]},
        rope_scaling=rope_scaling(sizes.decoder),
        partial_rotary_factor=0.75,
        vision_config=vision_config(sizes.vision),
        audio_config=_audio(sizes.audio),
    )


def _audio(audio: Audio) -> dict[str, int]:
    return {
        "hidden_size": audio.hidden,
        "intermediate_size": audio.linear,
        "num_blocks": audio.blocks,
        "num_attention_heads": audio.heads,
        "ext_pw_out_channel": audio.hidden,
        "depthwise_separable_out_channel": audio.hidden,
        "nemo_conv_channels": audio.conv_channels,
        "bias_max_distance": 500,
    }


def _processor_config(sizes: Sizes) -> dict[str, Any]:
    return {
        "auto_map": {"AutoImageProcessor": "image_processing_phi4mm.Phi4MMImageProcessor"},
        "processor_class": "Phi4MultimodalProcessor",
        "image_processor_type": "Phi4MMImageProcessor",
        "feature_extractor_type": "Phi4MultimodalFeatureExtractor",
        "dynamic_hd": sizes.dynamic_hd,
        "audio_compression_rate": 8,
    }
