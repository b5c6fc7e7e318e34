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

from worker.engines import fast_conformer

#: Frames of 10 ms in one of 80 ms, which is a token.
_FRAMES = 8
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
        self._ours = all(fast_conformer.suits(layer) for layer in self._encoder.encoders)
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
            and encoder.embed.subsampling_factor == _FRAMES
            and all(isinstance(step, torch.nn.Conv2d | torch.nn.ReLU) for step in encoder.embed.conv)
            and all(layer.conv.causal for layer in encoder.encoders)
        )

    def __call__(self, clips: Sequence[Tensor], project: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """Embed clips, each (frames of 10 ms, mel bins); gives (tokens, hidden size) for each, in their order."""
        encoded = dict(self._encoded(clips))
        sounds = [encoded[number] for number in range(len(clips))]
        return list(project(torch.cat(sounds)).split([len(sound) for sound in sounds]))

    def _encoded(self, clips: Sequence[Tensor]) -> Iterator[tuple[int, Tensor]]:
        for length, numbers in _batches([_tokens(len(clip)) for clip in clips]):
            chosen = [clips[number] for number in numbers]
            yield from zip(numbers, self._together(chosen, length), strict=True)

    def _together(self, clips: Sequence[Tensor], length: int) -> tuple[Tensor, ...]:
        first, frames = clips[0], [len(clip) for clip in clips]
        number = next(size for size in _BATCHES if size >= len(clips))
        padded = first.new_zeros(number, length * _FRAMES, first.shape[1])
        for row, clip in zip(padded, clips, strict=False):
            row[: len(clip)] = clip
        counted = torch.tensor(frames + [0] * (number - len(frames)), dtype=torch.int32)
        if first.is_cuda:
            encoded = self._recorded(padded, counted.pin_memory().to(first.device, non_blocking=True))
        else:
            encoded = self._encode(padded, counted)
        sizes = [_tokens(count) for count in frames]
        # Copied at once: the next replay may write over it.
        sounds = torch.cat([row[:size] for row, size in zip(encoded, sizes, strict=False)])
        return tuple(sounds.split(sizes))

    def _encode(self, padded: Tensor, frames: Tensor) -> Tensor:
        """Encode (clips, frames, mel bins), of which each clip's first `frames` are sound."""
        # One by one, since the first convolution of 30 s takes 120 MB.
        rows = [self._subsampled(*row) for row in zip(padded.split(1), frames.split(1), strict=True)]
        return self._blocks(torch.cat(rows), _halved(frames, _FRAMES.bit_length() - 1))

    def _subsampled(self, clip: Tensor, frames: Tensor) -> Tensor:
        """One frame of 80 ms for eight of 10 ms; beyond its end a clip looks to the convolutions as if it ended."""
        embed = self._encoder.embed
        sound = self._encoder.encoder_embedding(clip).unsqueeze(1)
        sound = sound * _is_sound(sound, frames)
        for step in embed.conv:
            sound = step(sound)
            if isinstance(step, torch.nn.ReLU):
                frames = _halved(frames)
                sound = sound.mul_(_is_sound(sound, frames))
        subsampled: Tensor = embed.out(sound.transpose(1, 2).flatten(2))
        return subsampled

    def _blocks(self, padded: Tensor, sizes: Tensor) -> Tensor:
        """The conformer blocks on (clips, frames, width), of which each clip's first `sizes` are sound."""
        length = padded.shape[1]
        is_sound = torch.arange(length, device=padded.device) < sizes.unsqueeze(1)
        silence = torch.zeros_like(is_sound, dtype=padded.dtype).masked_fill(~is_sound, _NOT_SOUND)
        bias = self._bias(padded) + silence[:, None, None, :]
        if self._ours:
            return fast_conformer.blocks(padded, bias, self._encoder.encoders)
        # All frames, also those of padding, see something: their attention stays finite.
        everything = torch.ones(1, length, length, dtype=torch.bool, device=padded.device)
        for layer in self._encoder.encoders:
            padded = layer(padded, None, None, everything, relative_attention_bias=bias)[0]
        return padded

    def _bias(self, padded: Tensor) -> Tensor:
        length = padded.shape[1]
        if length not in self._biases:
            # Made with its heads innermost, which no attention kernel takes; a sum would keep that order.
            self._biases[length] = self._encoder.relative_attention_bias_layer(padded).contiguous()
        return self._biases[length]

    def _recorded(self, padded: Tensor, frames: Tensor) -> Tensor:
        shape = padded.shape[0], padded.shape[1]
        if shape not in self._recordings:
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            self._recordings[shape] = _Recording(self._encode, padded, frames, self._pool)
        return self._recordings[shape](padded, frames)


class _Recording:
    """The kernels of one size, launched together."""

    def __init__(self, run: Callable[[Tensor, Tensor], Tensor], padded: Tensor, frames: Tensor, pool: Any) -> None:
        self._padded, self._frames = padded.clone(), frames.clone()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            run(self._padded, self._frames)  # once for libraries that allocate at their first call
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool):
            self._encoded = run(self._padded, self._frames)

    def __call__(self, padded: Tensor, frames: Tensor) -> Tensor:
        self._padded.copy_(padded)
        self._frames.copy_(frames)
        self._graph.replay()
        return self._encoded


def fits(frames: int) -> bool:
    """Whether a clip of so many frames of 10 ms is short enough; vLLM's own code cuts longer ones into pieces."""
    return 0 < _tokens(frames) <= _LENGTHS[-1]


def _tokens(frames: int) -> int:
    return -(-frames // _FRAMES)


def _halved(frames: Tensor, times: int = 1) -> Tensor:
    """What strides of two leave of so many frames."""
    for _ in range(times):
        frames = (frames + 1) // 2
    return frames


def _is_sound(clips: Tensor, frames: Tensor) -> Tensor:
    """1 where there is sound, for (clips, channels, frames, bins); of that shape but for channels and bins."""
    is_sound = torch.arange(clips.shape[2], device=clips.device) < frames.unsqueeze(1)
    return is_sound[:, None, :, None].to(clips.dtype)


def _batches(lengths: Sequence[int]) -> Iterable[tuple[int, list[int]]]:
    """Group clips, by number, that are padded to the same length, at most so many as may go together."""

    def padded(number: int) -> int:
        return next(length for length in _LENGTHS if length >= lengths[number])

    for length, numbers in groupby(sorted(range(len(lengths)), key=padded), key=padded):
        waiting = list(numbers)
        for start in range(0, len(waiting), _BATCHES[-1]):
            yield length, waiting[start : start + _BATCHES[-1]]
