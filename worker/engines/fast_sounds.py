"""Sound for Phi-4-multimodal: samples until they are on the GPU, and log-mel features there.

The first half stands in the checkpoint's own processor in place of its sound part, which takes 65 ms of processor time
for a clip of 30 s, and in the worker all threads wait for one interpreter meanwhile. It leaves torch alone as far as it
can: torch hands the interpreter to another thread in each operation, and has to wait until it gets it back, 2 to 3 ms
in a full worker (bench/NOTES.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.audio_utils import mel_filter_bank

from worker.engines.base import FULL_SCALE, Sound

SAMPLE_RATE = 16_000
_WINDOW, _HOP, _FFT = 400, 160, 512
_BINS = 80
_HIGHEST = 7_690.0  #: Hz
_PREEMPHASIS = 0.97


class FastSounds:
    """The checkpoint's feature extractor with another call; whatever else vLLM asks of it is its own."""

    def __init__(self, theirs: Any, tokens_of: Callable[[int], int]) -> None:
        self._theirs = theirs
        self.tokens_of = tokens_of  #: how many tokens so many frames become

    def __getattr__(self, name: str) -> Any:
        return getattr(self._theirs, name)

    def __call__(self, audios: Sequence[tuple[Any, int]], **_: Any) -> dict[str, Any]:
        """Lay out (samples, rate), all at 16 kHz.

        `input_audio_embeds`: sounds × rows × columns, 16-bit samples, a row for each frame of 10 ms, filled up;
        `audio_embed_sizes`: tokens of each. Raises `ValueError`.
        """
        rows = self.laid_out(audios)
        return {
            "input_audio_embeds": pad_sequence(rows, batch_first=True),
            "audio_embed_sizes": torch.tensor([self.tokens_of(len(sound)) for sound in rows]),
        }

    def laid_out(self, audios: Sequence[tuple[Sound, int]]) -> list[Tensor]:
        """Lay out each sound by itself: a row for each frame, as many columns for all. Raises `ValueError`."""
        if strange := {rate for _, rate in audios} - {SAMPLE_RATE}:
            raise ValueError(f"sound must have {SAMPLE_RATE} samples a second, not {strange}")
        frames = [_frames_in(len(samples)) for samples, _ in audios]
        if min(frames) < 1:
            raise ValueError(f"sound must have {_WINDOW} samples at least")
        columns = max(-(-_samples_in(count) // count) for count in frames)
        return [_laid_out(samples, count, columns) for (samples, _), count in zip(audios, frames, strict=True)]


def features(rows: Tensor) -> Tensor:
    """Give (frames of 10 ms, 80) of what `FastSounds` laid out of one sound: (frames, columns)."""
    return log_mel(rows.flatten()[: _samples_in(len(rows))])


def log_mel(samples: Tensor) -> Tensor:
    """Give (frames of 10 ms, 80) of 16-bit mono sound at 16 kHz; samples that fill no window of 25 ms are left."""
    frames = samples.float().unfold(0, _WINDOW, _HOP)
    window, mel = _constants(samples.device)
    emphasized = frames * window
    # Each window begins anew: its first sample stands for the one before it.
    emphasized[:, 1:] -= _PREEMPHASIS * window[1:] * frames[:, :-1]
    emphasized[:, 0] *= 1 - _PREEMPHASIS
    power = torch.view_as_real(torch.fft.rfft(emphasized, n=_FFT)).square_().sum(-1)
    return (power @ mel).clamp_(min=1.0).log_()


def _laid_out(samples: Sound, frames: int, columns: int) -> Tensor:
    """Lay samples out over as many rows as there are frames: vLLM cuts off what comes after them."""
    sound = _in_16_bits(samples[: _samples_in(frames)])
    # Bytes that are copied by Python itself: numpy, too, gives the interpreter away for so many numbers.
    laid_out = bytearray(frames * columns * sound.itemsize)
    laid_out[: sound.nbytes] = sound.data.cast("B")
    return torch.from_numpy(np.frombuffer(laid_out, np.int16).reshape(frames, columns))


def _in_16_bits(sound: Sound) -> NDArray[np.int16]:
    """Give sound as preparation writes it: of its clips nothing is lost."""
    if sound.dtype == np.int16:
        return np.ascontiguousarray(sound, np.int16)
    return np.clip(np.rint(sound * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def _frames_in(samples: int) -> int:
    return (samples - _WINDOW) // _HOP + 1


def _samples_in(frames: int) -> int:
    return (frames - 1) * _HOP + _WINDOW


@cache
def _constants(device: torch.device) -> tuple[Tensor, Tensor]:
    """The window and the mel filters (257 × 80)."""
    mel = mel_filter_bank(
        num_frequency_bins=_FFT // 2 + 1,
        num_mel_filters=_BINS,
        min_frequency=0.0,
        max_frequency=_HIGHEST,
        sampling_rate=SAMPLE_RATE,
        triangularize_in_mel_space=True,
        mel_scale="kaldi",
    )
    return torch.hamming_window(_WINDOW, periodic=False).to(device), torch.from_numpy(mel).float().to(device)
