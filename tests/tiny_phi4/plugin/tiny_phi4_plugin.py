"""vLLM plugin: a checkpoint whose config.json has `tiny_vision_tower` gets an image tower of those sizes.

vLLM builds the tower in the published size whatever config.json says; all other checkpoints still get that one.
"""

from __future__ import annotations

from typing import Any


def register() -> None:
    """Let the image encoder's constructor take the sizes from the configuration; called in each of vLLM's processes."""
    import vllm.model_executor.models.phi4mm as phi4mm

    build, tower = phi4mm.Phi4MMImageEncoder.__init__, phi4mm.SiglipVisionConfig
    if build.__module__ == __name__:
        return

    def build_small(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        sizes = getattr(config, "tiny_vision_tower", None) or {}
        phi4mm.SiglipVisionConfig = lambda **published: tower(**(published | sizes))
        try:
            build(self, config, *args, **kwargs)
        finally:
            phi4mm.SiglipVisionConfig = tower

    phi4mm.Phi4MMImageEncoder.__init__ = build_small
