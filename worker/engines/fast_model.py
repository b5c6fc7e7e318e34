"""Phi-4-multimodal for vLLM: its own model class, with encoders that take the clips and pictures of a step together.

Registered in vLLM's place of the model through its plugin door (`engine_core.register`); the weights, the decoder and
the prompt's processing are vLLM's. Where a model is built otherwise than the published one, vLLM's own code runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.models.phi4mm import (
    _AUDIO_PLACEHOLDER_TOKEN_ID,
    Phi4MMDummyInputsBuilder,
    Phi4MMForCausalLM,
    Phi4MMMultiModalProcessor,
    Phi4MMProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.processing.inputs import ProcessorInputs

from worker.engines import fast_pictures, fast_sounds
from worker.engines.crops import CROP
from worker.engines.fast_parts import quicken
from worker.engines.fast_speech import FastSpeech, fits

#: Of each clip: whether its prompt has pictures too.
_BESIDE_PICTURES = "audio_beside_pictures"
_SOUNDS = "input_audio_embeds"


class FastInfo(Phi4MMProcessingInfo):  # type: ignore[misc]
    """The checkpoint's processor with our parts in it."""

    def get_hf_processor(self, **settings: Any) -> Any:
        """Make it of the checkpoint's own, of which vLLM keeps one."""
        return quicken(
            super().get_hf_processor(**settings),
            find_grid=self._find_grid,
            tokens_of=self._compute_audio_embed_size,
            audio_token=_AUDIO_PLACEHOLDER_TOKEN_ID,
        )

    def _find_grid(self, width: int, height: int) -> tuple[int, int]:
        # vLLM's own, by which it counts a picture's tokens.
        most = self.get_dynamic_hd(super().get_hf_processor())
        (columns, rows), _, _ = self._find_target_aspect_ratio(width, height, CROP, most, 1)
        return columns, rows


class _BesidePictures(ProcessorInputs):  # type: ignore[misc]
    """Media among which clips go by other names than alone: vLLM keeps by name what it embedded."""

    def get_mm_hashes(self, *how: Any, **named: Any) -> Any:
        names = super().get_mm_hashes(*how, **named)
        return {**names, "audio": [f"{name}-beside-pictures" for name in names["audio"]]}


class FastProcessor(Phi4MMMultiModalProcessor):  # type: ignore[misc]
    """vLLM's, but sizes and masks stay where the CPU can read them, and clips know of pictures beside them."""

    def apply(self, inputs: Any, *more: Any, **named: Any) -> Any:
        """Make what the engine takes of a prompt with its media."""
        if {"image", "audio"} <= inputs.mm_data_items.keys():
            inputs = _BesidePictures(**vars(inputs))
        return super().apply(inputs, *more, **named)

    def _get_mm_fields_config(self, hf_inputs: Any, *more: Any, **named: Any) -> Mapping[str, MultiModalFieldConfig]:
        fields = dict(super()._get_mm_fields_config(hf_inputs, *more, **named))
        for name in ("image_sizes", "image_attention_mask", "num_img_tokens"):
            fields[name] = MultiModalFieldConfig.batched("image", keep_on_cpu=True)
        pictures, clips = (len(hf_inputs.get(name, ())) for name in ("image_sizes", _SOUNDS))
        hf_inputs[_BESIDE_PICTURES] = [int(pictures > 0)] * clips  # no tensors, see `fast_sounds`
        fields[_BESIDE_PICTURES] = MultiModalFieldConfig.batched("audio", keep_on_cpu=True)
        return fields


@MULTIMODAL_REGISTRY.register_processor(FastProcessor, info=FastInfo, dummy_inputs=Phi4MMDummyInputsBuilder)
class FastPhi4MM(Phi4MMForCausalLM):  # type: ignore[misc]
    """vLLM's model with faster encoders; gives what vLLM's gives, within rounding, where that is Microsoft's way.

    It is not for clips beside pictures, and for pictures with padding (`fast_tower`).
    """

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        embedding = self.embed_tokens_extend
        self._fast_speech = FastSpeech(embedding) if FastSpeech.suits(embedding) else None
        self._beside_pictures: Any = None

    def embed_multimodal(self, **inputs: Any) -> Any:
        """Embed what a step brings; vLLM gives one modality at a time."""
        self._beside_pictures = inputs.pop(_BESIDE_PICTURES, None)
        if (sounds := inputs.get(_SOUNDS)) is not None:
            inputs[_SOUNDS] = [self._heard(sound) for sound in sounds]
        return super().embed_multimodal(**inputs)

    def _heard(self, sound: Tensor) -> Tensor:
        """The features of a clip, in the model's precision; the checkpoint's own processor has made them already."""
        dtype = next(self.embed_tokens_extend.parameters()).dtype
        return (sound if sound.is_floating_point() else fast_sounds.features(sound)).to(dtype)

    def _process_audio_input(self, audio_input: Any, audio_projection_mode: str) -> Any:
        """Project clips beside pictures as Microsoft's code does, and not like vLLM, which knows each clip alone."""
        clips, beside = audio_input.get("audio_features"), self._beside_pictures
        if clips is None or beside is None:
            return super()._process_audio_input(audio_input, audio_projection_mode)
        embedded: list[Any] = [None] * len(clips)
        for flag in set(beside):
            numbers = [number for number, its in enumerate(beside) if its == flag]
            made = self._embed_clips([clips[number] for number in numbers], "vision" if flag else "speech")
            for number, tokens in zip(numbers, made, strict=True):
                embedded[number] = tokens
        return embedded

    def _embed_clips(self, clips: Sequence[Tensor], mode: str) -> Sequence[Tensor]:
        embedding = self.embed_tokens_extend
        if self._fast_speech is None or not all(fits(len(clip)) for clip in clips):
            return [embedding(clip, audio_projection_mode=mode) for clip in clips]
        project = embedding.audio_projection_for_vision if mode == "vision" else embedding.audio_projection
        return self._fast_speech(clips, project)

    def _process_image_input(self, image_input: Any) -> list[Tensor]:
        pixels, masks = image_input["pixel_values"], image_input["image_attention_mask"]
        if pixels[0].dtype != torch.uint8:  # the checkpoint's own image processor (`fast_parts`)
            on_gpu = [mask.to(pixels[0].device) for mask in masks]
            return list(super()._process_image_input({**image_input, "image_attention_mask": on_gpu}))
        return fast_pictures.embed(self.vision_encoder, pixels, image_input["image_sizes"], masks)
