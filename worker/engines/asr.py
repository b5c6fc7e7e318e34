"""Moonshine as this service uses it: one clip of English speech to text with times."""

from __future__ import annotations

import threading
import wave
from typing import Any

import numpy as np

# From its modules, not from the package: the microphone parts want PortAudio, which servers do not have.
from moonshine_voice.moonshine_api import ModelArch
from moonshine_voice.transcriber import Transcriber
from moonshine_voice.utils import get_assets_path, get_model_path
from numpy.typing import NDArray

from worker.engines.base import Span

RATE = 16_000  #: samples per second
#: Said first, or the end of the last clip, of whatever job, would be heard at the beginning of the next.
_SILENCE = np.zeros(RATE, np.float32)
_PROBE = "beckett.wav"  #: a recording that ships with the model
_PROBE_SECONDS = 2


class ClipWriter:
    """Writes down clips, one at a time."""

    def __init__(self) -> None:
        self._transcriber: Any = Transcriber(
            str(get_model_path("tiny-en")), ModelArch.TINY, options={"return_audio_data": "false"}
        )
        # The next call overwrites the memory that the last answer is read from, and carries over what it heard last.
        self._one_at_a_time = threading.Lock()

    def write_down(self, samples: NDArray[np.float32]) -> tuple[Span, ...]:
        """Give what is said when, in seconds within the clip; nothing for silence."""
        seconds = len(samples) / RATE
        if not len(samples):
            return ()
        with self._one_at_a_time:
            self._transcriber.transcribe_without_streaming(_SILENCE, RATE)
            lines = self._transcriber.transcribe_without_streaming(samples, RATE).lines
        return tuple(
            Span(
                start=round(min(line.start_time, seconds), 3),
                end=round(min(line.start_time + line.duration, seconds), 3),
                text=line.text.strip(),
            )
            for line in lines
            if line.text.strip()
        )

    def close(self) -> None:
        """Free the model."""
        with self._one_at_a_time:
            self._transcriber.close()


def probe_clip() -> NDArray[np.float32]:
    """Give two seconds of real speech at `RATE`."""
    with wave.open(str(get_assets_path() / _PROBE)) as file:
        rate = file.getframerate()
        pcm = np.frombuffer(file.readframes(rate * _PROBE_SECONDS), "<i2")[:: file.getnchannels()]
    at = np.arange(RATE * _PROBE_SECONDS) * rate / RATE
    return np.asarray(np.interp(at, np.arange(len(pcm)), pcm / 32768.0), np.float32)
