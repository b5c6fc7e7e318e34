"""The checkpoint's own code: its configuration, which holds whatever config.json says."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


class Phi4MMConfig(PretrainedConfig):
    """Every field of config.json as an attribute, beside those that vLLM reads and config.json leaves out."""

    model_type = "phi4mm"

    def __init__(self, **fields: Any) -> None:
        self.attention_bias = False
        self.mlp_bias = False
        # The constructor reads some of them for the rotary embedding before it sets the rest.
        for name, value in fields.items():
            setattr(self, name, value)
        super().__init__(**fields)
