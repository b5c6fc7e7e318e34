"""Pages and clips for the GPU bench: new ones for every measurement, so that no cache can answer."""

from __future__ import annotations

import io
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from bench.pages import RATE, text_page
from bench.pages import recordings as packaged_recordings
from worker.engines.base import ReadPage, Task, TranscribeClip
from worker.media import audio, images

#: A recording is cut at its pauses into clips of about half this.
RECORDING_SECONDS = 58.0
_seeds = count(1)


@dataclass(frozen=True)
class Sample:
    """One file as a caller sends it."""

    job_type: str
    content: bytes
    tasks: tuple[Task, ...]  #: what preparation makes of it, for the engine alone


def pages(number: int) -> list[Sample]:
    """Full A4 pages at 150 dpi, 1240 × 1754, as JPEG."""
    seeds = [next(_seeds) for _ in range(number)]
    with ProcessPoolExecutor() as pool:
        contents = list(pool.map(_page, seeds, chunksize=4))
    return [Sample("ocr", content, (ReadPage(images.decode(content)),)) for content in contents]


def recordings(number: int) -> list[Sample]:
    """About a minute of human speech with new noise over it, as WAV."""
    speech = np.concatenate(packaged_recordings())
    speech = np.resize(speech, round(RECORDING_SECONDS * RATE))
    return [_recording(speech, next(_seeds)) for _ in range(number)]


def _page(seed: int) -> bytes:
    file = io.BytesIO()
    text_page(seed).convert("RGB").save(file, "JPEG", quality=90)
    return file.getvalue()


def _recording(speech: NDArray[np.float32], seed: int) -> Sample:
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.002, len(speech)).astype(np.float32)
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        soundfile.write(file, np.roll(speech, int(rng.integers(len(speech)))) + noise, RATE, format="WAV")
        with audio.open_recording(Path(file.name), max_seconds=600) as recording:
            tasks = tuple(TranscribeClip(clip.samples) for clip in recording.clips())
        return Sample("asr", Path(file.name).read_bytes(), tasks)
