"""The spoken clip: its sentences and the machine voice that reads them."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

SENTENCES = (
    "Good morning, and welcome to this short recording.",
    "Today we are going to talk about how machines read.",
    "Every document is cut into single pages.",
    "At the end, all the pages are put together in the right order.",
    "You may also ask a question about a picture.",
    "Every recording is cut into short clips.",
    "The answer will be sent to you when it is ready.",
    "Thank you for listening.",
)
SPEECH_RATE = 16_000  #: samples per second
PAUSE_SECONDS = 0.8


VOICE = ("-v", "en-us", "-s", "145", "-p", "45")


def resampled(samples: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    """Return `samples`, taken at the higher `rate`, at SPEECH_RATE, without what that cannot carry."""
    count = round(len(samples) * SPEECH_RATE / rate)
    return np.fft.irfft(np.fft.rfft(samples)[: count // 2 + 1], count) * (count / len(samples))


def spoken(sentence: str) -> NDArray[np.float64]:
    """Return `sentence` as the machine voice reads it."""
    wav = subprocess.run(["espeak-ng", *VOICE, "--stdout", sentence], capture_output=True, check=True).stdout
    samples, rate = soundfile.read(io.BytesIO(wav))
    return resampled(samples, rate)


def make_talk(path: Path) -> dict[str, Any]:
    """Write the clip and return the truth about it."""
    pause = np.zeros(round(PAUSE_SECONDS * SPEECH_RATE))
    pieces = [piece for sentence in SENTENCES for piece in (spoken(sentence), pause)]
    soundfile.write(path, np.concatenate([pause / 2, *pieces]), SPEECH_RATE, format="MP3", compression_level=0.7)
    return {"type": "asr", "voice": "espeak-ng " + " ".join(VOICE), "sentences": list(SENTENCES)}
