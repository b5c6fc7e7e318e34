"""Pages and recordings for the GPU bench: new ones for every measurement, so that no cache can answer."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import count, islice
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from bench.pages import RATE, text_page
from worker.engines.base import ReadPage, Task, TranscribeClip
from worker.media import images

#: Preparation cuts no clip longer than 30 s; this one it leaves whole.
CLIP_SECONDS = 29.9
#: 16 kHz, mono; every checkout has it.
_TALK = Path(__file__).parents[2] / "examples" / "inputs" / "talk.mp3"
_WINDOW = 512  #: samples in which loudness is measured: 32 ms


@dataclass(frozen=True)
class Sample:
    """One file as a caller sends it; preparation makes one part of it."""

    job_type: Literal["ocr", "asr"]
    content: bytes

    def task(self) -> Task:
        """What preparation makes of the file, for the engine alone."""
        if self.job_type == "ocr":
            return ReadPage(images.decode(self.content))
        return TranscribeClip(soundfile.read(io.BytesIO(self.content), dtype="int16")[0])


class Inputs:
    """A source of samples that never gives the same one twice; draws them in processes of its own."""

    def __init__(self) -> None:
        self._seeds = count(1)
        # Not by fork: this process may have the threads of an engine.
        self._pool = ProcessPoolExecutor(mp_context=get_context("spawn"))

    def __enter__(self) -> Inputs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()

    def pages(self, number: int) -> Sequence[Sample]:
        """Draw full A4 pages at 150 dpi, 1240 × 1754, as JPEG."""
        return list(self._pool.map(_page, islice(self._seeds, number), chunksize=4))

    def clips(self, number: int) -> Sequence[Sample]:
        """Make recordings of 30 s of speech without pauses, with new noise over each, as WAV."""
        return list(self._pool.map(_clip, islice(self._seeds, number), chunksize=4))


def _page(seed: int) -> Sample:
    file = io.BytesIO()
    text_page(seed).convert("RGB").save(file, "JPEG", quality=90)
    return Sample("ocr", file.getvalue())


def _clip(seed: int) -> Sample:
    rng = np.random.default_rng(seed)
    speech = np.roll(_speech(), int(rng.integers(len(_speech()))))
    length = round(CLIP_SECONDS * RATE)
    noisy = np.resize(speech, length) + rng.normal(0, 0.002, length).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, noisy, RATE, format="WAV")
    return Sample("asr", file.getvalue())


@cache
def _speech() -> NDArray[np.float32]:
    """Return the louder half of the example talk: without a pause at which preparation could cut."""
    speech, _ = soundfile.read(_TALK, dtype="float32")
    windows = speech[: len(speech) // _WINDOW * _WINDOW].reshape(-1, _WINDOW)
    loudness = np.square(windows).mean(axis=1)
    loud: NDArray[np.float32] = windows[loudness > np.median(loudness)].ravel()
    return loud
