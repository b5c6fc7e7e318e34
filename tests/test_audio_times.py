"""Sound keeps its times where a container states them: late starts, gaps, and what encoders put in front."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from phi4.errors import AudioTooLong, UnreadableAudio
from tests.recordings import (
    BY_FFMPEG,
    MAX_SECONDS,
    RATE,
    Sound,
    assert_in_order,
    heard,
    quiet,
    write,
)
from worker.media.audio import open_recording


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "input"


def write_timed(path: Path, format: str, blocks: list[tuple[float, Sound]], *, film: float = 0) -> Path:
    """Write blocks of sound at 48 kHz, each at its time in seconds, beside pictures for `film` seconds."""
    container, codec, rate = BY_FFMPEG[format]
    with av.open(path, "w", format=container) as file:
        stream: Any = file.add_stream(codec, rate=rate, layout="mono")
        if film:
            pictures: Any = file.add_stream("libvpx" if format == "webm" else "mpeg4", rate=5)
            pictures.width = pictures.height = 64
            for _ in range(int(film * 5)):
                file.mux(pictures.encode(av.VideoFrame(64, 64, "yuv420p")))
            file.mux(pictures.encode(None))
        for start, sound in blocks:
            resampler = av.AudioResampler(format=stream.format.name, layout="mono", rate=rate, frame_size=960)
            frame = av.AudioFrame.from_ndarray(sound[np.newaxis, :], format="flt", layout="mono")
            frame.sample_rate, done = RATE, 0
            for block in [*resampler.resample(frame), *resampler.resample(None)]:
                block.pts, block.time_base = round(start * rate) + done, Fraction(1, rate)
                done += block.samples
                file.mux(stream.encode(block))
        file.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("starts", [(0.0, 12.0), (5.0,), (0.5, 9.0, 30.0)], ids=["a gap", "late", "both"])
@pytest.mark.parametrize("format", ["webm", "mp4"])
def test_where_nothing_was_recorded_there_is_silence(
    path: Path, speech: Sound, format: str, starts: tuple[float, ...]
) -> None:
    """Sound that begins late or pauses keeps its times, as in a player, and silence counts in the duration."""
    write_timed(path, format, [(start, speech[: 4 * RATE]) for start in starts])

    clips, duration = heard(path)

    assert duration == pytest.approx(starts[-1] + 4, abs=0.1)
    assert [clip.start for clip in clips] == pytest.approx([start + 0.1 for start in starts], abs=0.15)
    assert_in_order(clips, duration, 30)


@pytest.mark.parametrize(("format", "start"), [("webm", 5.0), ("webm", 30.0), ("mp4", 5.0)])
def test_sound_that_starts_after_the_pictures_keeps_its_time(
    path: Path, speech: Sound, format: str, start: float
) -> None:
    """Also where it starts so late that FFmpeg, opening the file, does not see it."""
    write_timed(path, format, [(start, speech[: 4 * RATE])], film=start + 4)

    (clip,), duration = heard(path)

    assert duration == pytest.approx(start + 4, abs=0.1)
    assert clip.start == pytest.approx(start + 0.1, abs=0.15)


@pytest.mark.parametrize("start", [0.3, 5.0])
def test_a_late_recording_that_was_cut_short_is_an_error(path: Path, speech: Sound, start: float) -> None:
    """The length that a WebM states is where it ends, wherever it begins."""
    content = write_timed(path, "webm", [(start, speech)]).read_bytes()
    path.write_bytes(content[: int(len(content) * 0.6)])

    with pytest.raises(UnreadableAudio, match="cut short"):
        heard(path)


@pytest.mark.parametrize(
    ("shift", "seconds"),
    [
        (lambda number: -0.019 * (number % 5), 3.0),
        (lambda number: -0.01 * min(number, 50), 3.0),
        (lambda number: -0.01 * min(number, 50) + (number > 100), 3.5),
        (lambda number: 0.002 * number, 3.3),
    ],
    ids=["jitter", "an overlap", "an overlap and a gap", "a clock that drifts"],
)
def test_times_that_are_a_little_off_add_no_silence(path: Path, shift: Callable[[int], float], seconds: float) -> None:
    """Silence comes only where sound would otherwise be more than 0.1 s early, and then it is as long as that."""
    block = quiet(0.02) + np.float32(0.1)
    write_timed(path, "webm", [(0.02 * number + shift(number), block) for number in range(150)])

    _, duration = heard(path)

    assert duration == pytest.approx(seconds, abs=0.11)


@pytest.mark.parametrize("format", ["m4a", "mp4", "webm"])
def test_an_encoders_delay_is_no_silence(path: Path, speech: Sound, format: str) -> None:
    """What encoders put in front is told by negative times or an edit list; two frames may be added at the end."""
    _, duration = heard(write(path, speech, format))

    assert 0 <= duration - len(speech) / RATE < 0.05


def test_an_edit_list_that_cuts_the_beginning_adds_no_silence(path: Path, speech: Sound) -> None:
    """A phone trims a recording by its edit list alone."""
    content = bytearray(write(path, speech, "m4a").read_bytes())
    at = content.index(b"elst") + 12
    length, delay = struct.unpack(">II", content[at : at + 8])
    content[at : at + 8] = struct.pack(">II", length - 2_000, delay + 2 * 44_100)
    path.write_bytes(content)

    (clip,), duration = heard(path)

    assert duration == pytest.approx(len(speech) / RATE - 2, abs=0.1)
    assert clip.start < 0.2


@pytest.mark.parametrize("starts", [(0.0, 700.0), (0.0, 3e8), (3e8,)], ids=["too late", "years", "years at once"])
def test_a_silence_has_bounds(path: Path, starts: tuple[float, ...]) -> None:
    """A time beyond the longest recording, which no header tells, is refused before any of that silence is made."""
    write_timed(path, "webm", [(start, quiet(1)) for start in starts], film=1)
    blocks: list[None] = []

    with (
        pytest.raises(AudioTooLong),
        open_recording(path, max_seconds=MAX_SECONDS, on_block=lambda: blocks.append(None)) as recording,
    ):
        list(recording.clips())

    assert len(blocks) <= 60
