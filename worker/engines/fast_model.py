"""Phi-4-multimodal for vLLM: its own model class, with encoders that take the clips and pictures of a step together.

Registered in vLLM's place of the model through its plugin door (`engine_core.register`); the weights, the decoder and
the prompt's processing are vLLM's. Where a model is built otherwise than the published one, vLLM's own code runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from vllm.model_executor.models.phi4mm import (
    Phi4MMDummyInputsBuilder,
    Phi4MMForCausalLM,
    Phi4MMMultiModalProcessor,
    Phi4MMProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalFieldConfig

from worker.engines import fast_pictures
from worker.engines.crops import CROP
from worker.engines.fast_crops import FastCrops
from worker.engines.fast_speech import FastSpeech, fits


class FastInfo(Phi4MMProcessingInfo):  # type: ignore[misc]
    """The checkpoint's processor with our image part."""

    def get_hf_processor(self, **settings: Any) -> Any:
        """The checkpoint's own, which vLLM makes once."""
        processor = super().get_hf_processor(**settings)
        if not isinstance(processor.image_processor, FastCrops):
            processor.image_processor = FastCrops(processor.image_processor, self._find_grid)
        return processor

    def _find_grid(self, width: int, height: int) -> tuple[int, int]:
        # vLLM's own, by which it counts a picture's tokens.
        most = self.get_dynamic_hd(self.get_hf_processor())
        (columns, rows), _, _ = self._find_target_aspect_ratio(width, height, CROP, most, 1)
        return columns, rows


class FastProcessor(Phi4MMMultiModalProcessor):  # type: ignore[misc]
    """vLLM's, but sizes and masks stay where the CPU can read them."""

    def _get_mm_fields_config(self, *arguments: Any) -> Mapping[str, MultiModalFieldConfig]:
        fields = dict(super()._get_mm_fields_config(*arguments))
        for name in ("image_sizes", "image_attention_mask", "num_img_tokens"):
            fields[name] = MultiModalFieldConfig.batched("image", keep_on_cpu=True)
        return fields


@MULTIMODAL_REGISTRY.register_processor(FastProcessor, info=FastInfo, dummy_inputs=Phi4MMDummyInputsBuilder)
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
