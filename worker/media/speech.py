"""Finds speech in a stream of samples and cuts it into clips at its pauses; holds at most one clip in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from worker.media.decoding import SAMPLE_RATE, Samples
from worker.media.voice import WINDOW, Detector

_SECOND = SAMPLE_RATE / WINDOW

_SPEECH_BEGINS, _SPEECH_GOES_ON = 0.5, 0.35  # probability of speech, with hysteresis as its authors advise
_PADDING = round(0.25 * _SECOND)
_FEWEST_VOICED = round(0.16 * _SECOND)  # less than the shortest word is a click
_SMOOTHING = round(0.16 * _SECOND)
# A pause ends a clip the sooner the longer the clip already is: after 3 s of quiet at first, at any breath later.
_LONGEST_PAUSE, _SHORTEST_PAUSE = 3.0 * _SECOND, 0.3 * _SECOND
_ANY_BREATH_WILL_DO = 0.7  # of the longest clip

_TURN = 64  #: windows judged in one call: 2 s of sound


@dataclass(frozen=True, slots=True)
class Clip:
    """A stretch of speech: where it lies in the recording (seconds), and its mono samples at 16 kHz."""

    start: float
    end: float
    samples: Samples


@dataclass(frozen=True, slots=True)
class _Window:
    samples: Samples  # only the last of a recording may be shorter than `WINDOW`
    is_voiced: bool
    loudness: float  # of the voice: probability of speech × root mean square


def cut(blocks: Iterable[Samples], *, longest: float) -> Iterator[Clip]:
    """Yield clips in order, never overlapping, none longer than `longest` seconds; silence and noise give none."""
    cutter = _Cutter(int(longest * _SECOND))
    for window in _windows(blocks):
        yield from cutter.push(window)
    yield from cutter.finish()


def _windows(blocks: Iterable[Samples]) -> Iterator[_Window]:
    detector = Detector()
    was_voiced = False
    windows = _sliced(blocks)
    while turn := list(islice(windows, _TURN)):
        padded = np.zeros((len(turn), WINDOW), np.float32)
        for row, samples in zip(padded, turn, strict=True):
            row[: len(samples)] = samples
        loudness = np.sqrt(np.square(padded).mean(axis=1))
        for samples, probability, volume in zip(turn, detector.judge(padded), loudness, strict=True):
            was_voiced = bool(probability >= (_SPEECH_GOES_ON if was_voiced else _SPEECH_BEGINS))
            yield _Window(samples, was_voiced, float(probability * volume))


def _sliced(blocks: Iterable[Samples]) -> Iterator[Samples]:
    rest = np.zeros(0, np.float32)
    for block in blocks:
        rest = np.concatenate((rest, block))
        whole = len(rest) - len(rest) % WINDOW
        yield from rest[:whole].reshape(-1, WINDOW)
        rest = rest[whole:]
    if len(rest):
        yield rest


class _Cutter:
    """Collects windows into one clip and decides where it ends; all lengths here are in windows."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._held: deque[_Window] = deque()
        self._first = 0  # which window of the recording the first held one is
        self._voiced_until = 0  # how many held windows there are up to the last voiced one

    def push(self, window: _Window) -> Iterator[Clip]:
        """Take one window; yield the clips it completes."""
        self._held.append(window)
        if window.is_voiced:
            self._voiced_until = len(self._held)
        if not self._voiced_until:
            self._forget(len(self._held) - _PADDING)
        elif len(self._held) - self._voiced_until >= self._enough_pause():
            yield from self._end(self._voiced_until + _PADDING)
        elif len(self._held) == self._longest:
            yield from self._cut_in_speech()

    def finish(self) -> Iterator[Clip]:
        """Yield the clip that the end of the recording completes."""
        if self._voiced_until:
            yield from self._end(min(self._voiced_until + _PADDING, len(self._held)))

    def _enough_pause(self) -> float:
        progress = self._voiced_until / (_ANY_BREATH_WILL_DO * self._longest)
        return max(_SHORTEST_PAUSE, _LONGEST_PAUSE * (1 - progress))

    def _cut_in_speech(self) -> Iterator[Clip]:
        at = self._least_voiced()
        voiced_until = max(n for n, window in enumerate(islice(self._held, at), 1) if window.is_voiced)
        length = min(voiced_until + _PADDING, at)
        yield from self._end(length)
        self._forget(at - length)
        later = list(self._held)
        self._held.clear()
        for window in later:
            yield from self.push(window)

    def _least_voiced(self) -> int:
        """Find the quietest moment of the later half, the last one of equals."""
        loudness = np.array([window.loudness for window in self._held])
        smooth = np.convolve(loudness, np.ones(_SMOOTHING) / _SMOOTHING, mode="same")
        half = len(smooth) // 2
        later = smooth[half : -_SMOOTHING or None]
        return half + len(later) - 1 - int(np.argmin(later[::-1]))

    def _end(self, length: int) -> Iterator[Clip]:
        clip = list(islice(self._held, length))
        start = self._first * WINDOW
        self._forget(length)
        self._voiced_until = 0
        if sum(window.is_voiced for window in clip) >= _FEWEST_VOICED:
            samples = np.concatenate([window.samples for window in clip])
            yield Clip(start / SAMPLE_RATE, (start + len(samples)) / SAMPLE_RATE, samples)

    def _forget(self, count: int) -> None:
        for _ in range(count):
            self._held.popleft()
        self._first += max(0, count)
