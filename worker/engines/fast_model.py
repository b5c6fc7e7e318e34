"""Phi-4-multimodal for vLLM: its own model class, with encoders that take the clips and pictures of a step together.

Registered in vLLM's place of the model through its plugin door (`engine_core.register`); the weights, the decoder and
the processor are vLLM's. Where a model is built otherwise than the published one, vLLM's own code runs.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from vllm.model_executor.models.phi4mm import Phi4MMForCausalLM

from worker.engines import fast_pictures
from worker.engines.fast_speech import FastSpeech, fits


class FastPhi4MM(Phi4MMForCausalLM):  # type: ignore[misc]
    """vLLM's model with faster encoders; gives what vLLM's gives, within rounding."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        embedding = self.embed_tokens_extend
        self._fast_speech = FastSpeech(embedding) if FastSpeech.suits(embedding) else None

    def _process_audio_input(self, audio_input: Any, audio_projection_mode: str) -> Any:
        clips = audio_input.get("audio_features")
        if self._fast_speech is None or clips is None or not all(fits(len(clip)) for clip in clips):
            return super()._process_audio_input(audio_input, audio_projection_mode)
        embedding = self.embed_tokens_extend
        for_vision = audio_projection_mode == "vision"
        project = embedding.audio_projection_for_vision if for_vision else embedding.audio_projection
        dtype = next(embedding.parameters()).dtype
        return self._fast_speech([clip.to(dtype) for clip in clips], project)

    def _process_image_input(self, image_input: Any) -> list[Tensor]:
        return fast_pictures.embed(
            self.vision_encoder,
            image_input["pixel_values"],
            image_input["image_sizes"],
            image_input["image_attention_mask"],
        )
