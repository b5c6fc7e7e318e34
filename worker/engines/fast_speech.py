"""Phi-4's speech encoder for many clips at once, on vLLM's own weights.

vLLM runs the encoder clip by clip, about 1 500 small kernels each: the GPU waits for their launches. Here the clips of
a step are padded to a few lengths and share them, and on a GPU the launches are recorded once for each size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

#: Frames of 80 ms; all are multiples of eight, which the attention kernels want of a bias. 376 are 30 s.
_LENGTHS = (48, 96, 144, 192, 240, 288, 336, 376)
_BATCHES = (1, 2, 4, 8, 16)
#: Added to the attention of a frame that is no sound; low enough for a weight of zero in any precision.
_NOT_SOUND = -1e4


class FastSpeech:
    """Turns clips into what the decoder reads; has no weights, and keeps what it recorded for each size."""

    def __init__(self, embedding: Any) -> None:
        self._embedding = embedding
        self._encoder = embedding.encoder
        self._biases: dict[int, Tensor] = {}
        self._recordings: dict[tuple[int, int], _Recording] = {}
        self._pool: Any = None

    @staticmethod
    def suits(embedding: Any) -> bool:
        """Whether an encoder is built as the published one: padding after a clip must not reach into it."""
        encoder = embedding.encoder
        return (
            embedding.qformer is None
            and embedding.conv_ds is None
            and embedding.linear_downsample_rate == 1
            and encoder.relative_attention_bias_layer is not None
            and all(layer.conv.causal for layer in encoder.encoders)
        )

    def __call__(self, clips: Sequence[Tensor], project: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """Embed clips, each (frames of 10 ms, mel bins); gives (tokens, hidden size) for each, in their order."""
        sounds = [self._subsampled(clip) for clip in clips]
        encoded = dict(self._encoded(sounds))
        frames = torch.cat([encoded[number] for number in range(len(sounds))])
        return list(project(frames).split([len(sound) for sound in sounds]))

    def _subsampled(self, clip: Tensor) -> Tensor:
        # One by one: beyond the end of a padded clip the convolutions would not see zeros.
        normed = self._encoder.encoder_embedding(clip.unsqueeze(0))
        frames: Tensor = self._encoder.embed(normed, None)[0]
        return frames.squeeze(0)

    def _encoded(self, sounds: Sequence[Tensor]) -> Iterator[tuple[int, Tensor]]:
        for length, numbers in _batches([len(sound) for sound in sounds]):
            chosen = [sounds[number] for number in numbers]
            yield from zip(numbers, self._through_blocks(chosen, length), strict=True)

    def _through_blocks(self, sounds: Sequence[Tensor], length: int) -> tuple[Tensor, ...]:
        first, sizes = sounds[0], [len(sound) for sound in sounds]
        number = next(size for size in _BATCHES if size >= len(sounds))
        padded = first.new_zeros(number, length, first.shape[1])
        for row, sound in zip(padded, sounds, strict=False):
            row[: len(sound)] = sound
        sized = torch.tensor(sizes + [0] * (number - len(sizes)), device=first.device)
        run = self._recorded(padded, sized) if first.is_cuda else self._blocks
        blocks = run(padded, sized)
        # Copied at once: the next replay may write over it.
        sound = torch.cat([row[:size] for row, size in zip(blocks, sizes, strict=False)])
        return tuple(sound.split(sizes))

    def _blocks(self, padded: Tensor, sizes: Tensor) -> Tensor:
        """The conformer blocks on (clips, frames, width), of which each clip's first `sizes` are sound."""
        length = padded.shape[1]
        is_sound = torch.arange(length, device=padded.device) < sizes.unsqueeze(1)
        silence = torch.zeros_like(is_sound, dtype=padded.dtype).masked_fill(~is_sound, _NOT_SOUND)
        bias = self._bias(padded) + silence[:, None, None, :]
        # All frames, also those of padding, see something: their attention stays finite.
        everything = torch.ones(1, length, length, dtype=torch.bool, device=padded.device)
        for layer in self._encoder.encoders:
            padded = layer(padded, None, None, everything, relative_attention_bias=bias)[0]
        return padded

    def _bias(self, padded: Tensor) -> Tensor:
        length = padded.shape[1]
        if length not in self._biases:
            self._biases[length] = self._encoder.relative_attention_bias_layer(padded)
        return self._biases[length]

    def _recorded(self, padded: Tensor, sizes: Tensor) -> _Recording:
        shape = padded.shape[0], padded.shape[1]
        if shape not in self._recordings:
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            self._recordings[shape] = _Recording(self._blocks, padded, sizes, self._pool)
        return self._recordings[shape]


class _Recording:
    """The kernels of one size, launched together."""

    def __init__(self, run: Callable[[Tensor, Tensor], Tensor], padded: Tensor, sizes: Tensor, pool: Any) -> None:
        self._padded, self._sizes = padded.clone(), sizes.clone()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            run(self._padded, self._sizes)  # once for libraries that allocate at their first call
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool):
            self._encoded = run(self._padded, self._sizes)

    def __call__(self, padded: Tensor, sizes: Tensor) -> Tensor:
        self._padded.copy_(padded)
        self._sizes.copy_(sizes)
        self._graph.replay()
        return self._encoded


def fits(frames: int) -> bool:
    """Whether a clip of so many frames of 10 ms is short enough; vLLM's own code cuts longer ones into pieces."""
    return 0 < -(-frames // 8) <= _LENGTHS[-1]


def _batches(lengths: Sequence[int]) -> Iterable[tuple[int, list[int]]]:
    """Group clips, by number, that are padded to the same length, at most so many as may go together."""

    def padded(number: int) -> int:
        return next(length for length in _LENGTHS if length >= lengths[number])

    for length, numbers in groupby(sorted(range(len(lengths)), key=padded), key=padded):
        waiting = list(numbers)
        for start in range(0, len(waiting), _BATCHES[-1]):
            yield length, waiting[start : start + _BATCHES[-1]]
