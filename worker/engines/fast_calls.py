"""The checkpoint's processor for vLLM, but for sound alone, of which it would make nothing that is not known before.

Its own call makes empty pictures and numbers of a dummy text, some twenty of torch's operations beside those of the
sound; `fast_sounds` says what one costs in a full worker.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from transformers.feature_extraction_utils import BatchFeature

from worker.engines.base import Sound, as_floats
from worker.engines.fast_sounds import FastSounds

#: What vLLM puts beside media in place of their prompt's words.
_SOUNDS_ALONE = re.compile(r"(?:<\|audio_\d+\|>)+")


class FastCalls:
    """A processor with another call; whatever else vLLM asks of it is the checkpoint's own."""

    hears_16_bits = True  #: where the checkpoint's own would take them for very loud floats

    def __init__(self, theirs: Any, audio_token: int) -> None:
        self._theirs = theirs
        self._audio_token = audio_token
        self.__signature__ = inspect.signature(theirs)  # by which vLLM knows what may be asked

    def __getattr__(self, name: str) -> Any:
        return getattr(self._theirs, name)

    def __call__(
        self,
        text: str | None = None,
        images: Any = None,
        audios: Sequence[tuple[Sound, int]] | None = None,
        **more: Any,
    ) -> BatchFeature:
        """Make tensors of media, and token ids of a text with their placeholders."""
        sounds = self._theirs.audio_processor
        if audios and not isinstance(sounds, FastSounds):
            audios = [(as_floats(samples), rate) for samples, rate in audios]  # what the checkpoint's own takes
        elif audios and not images and _SOUNDS_ALONE.fullmatch(text or ""):
            return self._of_sounds(sounds.laid_out(audios), sounds)
        return self._theirs(text=text, images=images, audios=audios, **more)

    def _of_sounds(self, rows: list[Tensor], sounds: FastSounds) -> BatchFeature:
        tokens = sum(sounds.tokens_of(len(sound)) for sound in rows)
        return BatchFeature(
            {
                "input_ids": np.full((1, tokens), self._audio_token),  # as a list, vLLM would look at each
                "input_audio_embeds": _Unpadded(rows),
                "image_sizes": [],
            }
        )


class _Unpadded:
    """Sounds that are cut as vLLM cuts the rows of a tensor, which would be padded to the longest."""

    def __init__(self, sounds: list[Tensor]) -> None:
        self._sounds = sounds

    def __getitem__(self, cut: tuple[int, slice]) -> Tensor:
        number, rows = cut
        sound = self._sounds[number]
        return sound if rows == slice(len(sound)) else sound[rows]

    def __len__(self) -> int:
        return len(self._sounds)
