"""Puts our picture and sound parts into the checkpoint's processor, where they prove to give what its own give.

The checkpoint brings its processor as code, which may be another one tomorrow. So each part is tried against its own at
every start, and one that differs leaves the checkpoint's own in place: slower, and right. The call around them
(`fast_calls`) uses the checkpoint's own for all but sound that ours lays out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from worker.engines import fast_pictures, fast_sounds
from worker.engines.fast_calls import FastCalls
from worker.engines.fast_crops import FastCrops
from worker.engines.fast_sounds import SAMPLE_RATE, FastSounds

_log = logging.getLogger(__name__)
_TRIED = "_phi4_quickened"
#: Of pixels from -1 to 1, and of the logarithms of sound.
_CLOSE = 0.02


def quicken(
    processor: Any,
    *,
    find_grid: Callable[[int, int], tuple[int, int]],
    tokens_of: Callable[[int], int],
    audio_token: int,
) -> Any:
    """Replace the parts of a processor that ours equal, once for each, and give what is to be called in its place."""
    if (quickened := getattr(processor, _TRIED, None)) is None:
        quickened = FastCalls(processor, audio_token)
        setattr(processor, _TRIED, quickened)  # first: what the trials ask of vLLM may come back here
        _replace(processor, "image_processor", FastCrops(processor.image_processor, find_grid), same_pictures)
        _replace(processor, "audio_processor", FastSounds(processor.audio_processor, tokens_of), same_sounds)
    return quickened


def _replace(processor: Any, name: str, ours: Any, is_same: Callable[[Any, Any], bool]) -> None:
    try:
        complaint = "" if is_same(getattr(processor, name), ours) else "it gives something else"
    except Exception as error:  # whatever strange code may throw
        complaint = f"{type(error).__name__}: {error}"
    if complaint:
        _log.warning("The checkpoint's own, slower %s is used, since ours was not made for it: %s", name, complaint)
    else:
        setattr(processor, name, ours)


def same_pictures(theirs: Any, ours: FastCrops, picture: Image.Image | None = None) -> bool:
    """Whether two image processors give the same of a picture, by default one that has to be scaled and padded."""
    if picture is None:
        picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 500, 3), np.uint8))
    expected, got = theirs([picture]), ours([picture])
    (layout,) = fast_pictures.layouts(got["image_sizes"], got["image_attention_mask"])
    pixels = fast_pictures.numbers(got["input_image_embeds"][0], layout, torch.float32)
    return (
        _close(expected["input_image_embeds"][0], pixels)
        and _close(expected["image_attention_mask"], got["image_attention_mask"])
        and _close(torch.as_tensor(expected["image_sizes"]), got["image_sizes"])
        and [int(n) for n in expected["num_img_tokens"]] == got["num_img_tokens"]
    )


def same_sounds(theirs: Any, ours: FastSounds) -> bool:
    """Whether two feature extractors give the same of half a second of noise."""
    noise = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE // 2 + 77).astype(np.float32)
    expected, got = theirs([(noise, SAMPLE_RATE)]), ours([(noise, SAMPLE_RATE)])
    (rows,) = got["input_audio_embeds"]
    return _close(expected["input_audio_embeds"], fast_sounds.features(rows).unsqueeze(0)) and _close(
        torch.as_tensor(expected["audio_embed_sizes"]), got["audio_embed_sizes"]
    )


def _close(expected: Tensor, got: Tensor) -> bool:
    return expected.shape == got.shape and bool(torch.allclose(expected.float(), got.float(), rtol=0, atol=_CLOSE))
