"""Turns an untrusted recording into clips of speech that an engine can transcribe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import numpy as np

from phi4.errors import AudioTooLong, AudioTooShort
from worker.media import decoding, speech
from worker.media.speech import Clip

__all__ = ["Clip", "Recording", "open_recording"]

SHORTEST_SECONDS = 0.1


@contextmanager
def open_recording(
    path: Path, *, max_seconds: float, on_block: Callable[[], None] = lambda: None
) -> Iterator[Recording]:
    """Open a recording of any accepted format for one pass over its clips.

    `on_block` is called for every block that is read, as hours of silence give no clips; what it raises ends the pass.
    Raises `EmptyInput`, `UnreadableAudio`, or `AudioTooLong` when the header already says so.
    """
    with path.open("rb") as file, decoding.opened(file, max_seconds=max_seconds) as source:
        yield Recording(source, max_seconds=max_seconds, on_block=on_block)


class Recording:
    """An open recording: `clips()` reads it once, and what is known of its length grows while it is read."""

    def __init__(self, source: decoding.Source, *, max_seconds: float, on_block: Callable[[], None]) -> None:
        self._source = source
        self._on_block = on_block
        self._max_samples = int(max_seconds * decoding.SAMPLE_RATE)
        self._decoded = 0
        #: Length in seconds as the header has it, for progress; None when it does not say, a guess for MP3 and AAC.
        self.stated_seconds = source.seconds

    @property
    def duration(self) -> float:
        """Seconds decoded so far; after the last clip, the length of the recording."""
        return self._decoded / decoding.SAMPLE_RATE

    def clips(self, *, longest: float = 30.0) -> Iterator[Clip]:
        """Yield the speech as clips cut at pauses, none longer than `longest` seconds; silence gives no clips.

        Streams: no more than one clip is held. Raises `UnreadableAudio`, `AudioTooShort` or `AudioTooLong`, the first
        also after some clips, when the damage lies further on.
        """
        return speech.cut(self._measured(), longest=longest)

    def whole(self, *, longest: float = 30.0) -> Iterator[Clip]:
        """Yield a recording of at most `longest` seconds as one clip, silence and all; a longer one as `clips` does.

        Raises as `clips` does.
        """
        blocks, head, length = self._measured(), list[decoding.Samples](), 0
        for block in blocks:
            head.append(block)
            length += len(block)
            if length > longest * decoding.SAMPLE_RATE:
                yield from speech.cut(chain(head, blocks), longest=longest)
                return
        yield Clip(0.0, self.duration, np.concatenate(head))

    def _measured(self) -> Iterator[decoding.Samples]:
        for block in decoding.samples(self._source):
            self._on_block()
            self._decoded += len(block)
            if self._decoded > self._max_samples:
                raise AudioTooLong
            yield block
        if self.duration < SHORTEST_SECONDS:
            raise AudioTooShort
