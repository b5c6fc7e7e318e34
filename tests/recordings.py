"""Writes recordings in every accepted format, and hears them as preparation does."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from worker.media.audio import Clip, open_recording

Sound = NDArray[np.float32]
RATE = 16_000
MAX_SECONDS = 600.0

#: How each accepted format is written: the container, the codec, the sample rate.
BY_FFMPEG = {
    "m4a": ("ipod", "aac", 44_100),
    "mp4": ("mp4", "aac", 48_000),
    "aac": ("adts", "aac", 44_100),
    "webm": ("webm", "libopus", 48_000),
    "mp3": ("mp3", "libmp3lame", 44_100),
    "oga": ("ogg", "libopus", 48_000),
}
BY_SOUNDFILE = {"wav": ("WAV", "PCM_16"), "flac": ("FLAC", "PCM_16"), "ogg": ("OGG", "VORBIS"), "rf64": ("RF64", None)}
FORMATS = [*BY_FFMPEG, *BY_SOUNDFILE]


def packaged(name: str) -> Sound:
    """Read one of the recordings that come with the speech engine, which are at 16 kHz."""
    found = find_spec("moonshine_voice")
    if found is None or found.origin is None:
        pytest.skip("real speech comes with the moonshine-voice package")
    sound, rate = soundfile.read(Path(found.origin).parent / "assets" / name, dtype="float32")
    assert rate == RATE
    return np.asarray(sound, np.float32)


def quiet(seconds: float) -> Sound:
    """Give silence."""
    return np.zeros(int(seconds * RATE), np.float32)


def write(path: Path, sound: Any, format: str = "wav", **options: Any) -> Path:
    """Write sound of `RATE` in one of `FORMATS`."""
    if format in BY_FFMPEG:
        _write_by_ffmpeg(path, sound, *BY_FFMPEG[format], **options)
    else:
        container, subtype = BY_SOUNDFILE[format]
        soundfile.write(path, sound, **{"samplerate": RATE, "format": container, "subtype": subtype} | options)
    return path


def _write_by_ffmpeg(path: Path, sound: Sound, container: str, codec: str, rate: int, **options: str) -> None:
    frame = av.AudioFrame.from_ndarray(sound[np.newaxis, :], format="flt", layout="mono")
    frame.sample_rate = RATE
    with av.open(path, "w", format=container, options=options) as file:
        stream: Any = file.add_stream(codec, rate=rate, layout="mono")
        resampler = av.AudioResampler(format=stream.format.name, layout="mono", rate=rate)
        for block in [*resampler.resample(frame), *resampler.resample(None)]:
            block.pts = None
            file.mux(stream.encode(block))
        file.mux(stream.encode(None))


def heard(path: Path, **options: Any) -> tuple[list[Clip], float]:
    """Return all clips and the duration."""
    with open_recording(path, max_seconds=MAX_SECONDS) as recording:
        clips = list(recording.clips(**options))
        return clips, recording.duration


def assert_in_order(clips: list[Clip], duration: float, longest: float) -> None:
    """Check what holds for the clips of any recording."""
    for clip in clips:
        assert clip.end - clip.start == pytest.approx(len(clip.samples) / RATE)
        assert clip.end - clip.start <= longest
        assert clip.samples.dtype == np.float32
        assert np.abs(clip.samples).max() <= 1
    edges = [0.0, *(edge for clip in clips for edge in (clip.start, clip.end)), duration]
    assert edges == sorted(edges)
