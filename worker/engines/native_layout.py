"""Reads Phi-4-multimodal as Microsoft published it, which is vLLM's layout, into transformers' own class.

Microsoft's repository holds the weights under the names of its own code, and a config.json for that code. The names
that transformers gives them differ in a few parts; the numbers are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Parts of published names, as patterns, and what transformers calls them.
NAMES = {
    r"\.base_layer\.": ".",
    r"\.glb_GN": ".global_img_feature_extensor",
    r"\.sub_GN": ".sub_img_feature_extensor",
    r"\.img_projection\.0\.": ".img_projection_up.",
    r"\.img_projection\.2\.": ".img_projection_down.",
    r"\.audio_projection\.speech\.0\.": ".up_proj_for_speech.",
    r"\.audio_projection\.speech\.2\.": ".down_proj_for_speech.",
    r"\.audio_projection\.vision\.0\.": ".up_proj_for_vision_speech.",
    r"\.audio_projection\.vision\.2\.": ".down_proj_for_vision_speech.",
    r"\.linear_out\.": ".o_proj.",
    r"\.linear_(q|k|v)\.": r".\1_proj.",
    r"\.net\.0\.linear\.": ".gate_up_proj.",
    r"\.net\.2\.": ".down_proj.",
}
#: Weights that transformers' class has and makes nothing of: the image tower's pooling.
UNUSED = ".img_processor.head."
#: Fields of the language model that are called the same.
_DECODER = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "hidden_act", "rms_norm_eps", "max_position_embeddings", "original_max_position_embeddings", "sliding_window",
    "tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id", "rope_theta", "rope_scaling",
    "partial_rotary_factor",
)  # fmt: skip
_AUDIO = {
    "attention_dim": "hidden_size",
    "linear_units": "intermediate_size",
    "num_blocks": "num_blocks",
    "attention_heads": "num_attention_heads",
    "ext_pw_out_channel": "ext_pw_out_channel",
    "depthwise_seperable_out_channel": "depthwise_separable_out_channel",
    "input_size": "input_size",
    "kernel_size": "kernel_size",
    "time_reduction": "time_reduction",
    "left_chunk": "left_chunk",
}
#: Sizes of the image tower where they are not Microsoft's, which are transformers' defaults; config.json tells none.
VISION: dict[str, Any] = {}


def is_published(config: Mapping[str, Any]) -> bool:
    """Whether config.json is that of Microsoft's code."""
    return config.get("model_type") == "phi4mm"


def config_of(published: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `Phi4MultimodalConfig` for a published config.json."""
    audio = published["audio_processor"]["config"]
    return {
        **{name: published[name] for name in _DECODER if name in published},
        "vision_config": dict(VISION),
        "audio_config": {
            **{ours: audio[theirs] for theirs, ours in _AUDIO.items() if theirs in audio},
            "nemo_conv_channels": audio["nemo_conv_settings"]["conv_channels"],
            "bias_max_distance": audio["relative_attention_bias_args"]["t5_bias_max_distance"],
        },
    }
