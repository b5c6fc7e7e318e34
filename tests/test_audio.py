"""Recordings become clips of speech at 16 kHz, or an error that says what is wrong with them."""

from __future__ import annotations

import gc
import random
import struct
import subprocess
import sys
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from phi4.errors import AudioTooLong, AudioTooShort, Cancelled, EmptyInput, InputError, UnreadableAudio
from tests.recordings import (
    FORMATS,
    MAX_SECONDS,
    RATE,
    Sound,
    assert_in_order,
    heard,
    packaged,
    quiet,
    write,
)
from worker.media.audio import open_recording
from worker.media.completeness import check_whole


@pytest.fixture(scope="module")
def unbroken() -> Sound:
    """Forty seconds of speech without any pause."""
    phrase = packaged("clone-test.wav")[12_000:62_000]
    return np.tile(phrase, 13)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "input"


@pytest.mark.parametrize("format", FORMATS)
def test_every_accepted_format_gives_the_same_clip(path: Path, speech: Sound, format: str) -> None:
    """A short recording is one clip from shortly before its first word to shortly after its last."""
    clips, duration = heard(write(path, speech, format))

    assert duration == pytest.approx(len(speech) / RATE, abs=0.1)
    (clip,) = clips
    assert (clip.start, clip.end) == pytest.approx((0.1, 9.15), abs=0.1)
    assert_in_order(clips, duration, 30)


def test_samples_are_those_of_the_file(path: Path, speech: Sound) -> None:
    """At 16 kHz mono nothing is resampled, mixed or shifted."""
    (clip,), _ = heard(write(path, speech, subtype="FLOAT"))

    start = round(clip.start * RATE)
    assert np.array_equal(clip.samples, speech[start : start + len(clip.samples)])


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 96_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_rate_and_number_of_channels_is_taken(path: Path, speech: Sound, rate: int, channels: int) -> None:
    """Clips are mono at 16 kHz and lie where the speech was, however the recording was made."""
    at = np.arange(0, len(speech) / RATE, 1 / rate)
    sound = np.interp(at, np.arange(len(speech)) / RATE, speech)

    clips, duration = heard(write(path, np.tile(sound[:, np.newaxis], channels), samplerate=rate))

    assert duration == pytest.approx(len(speech) / RATE, abs=0.02)
    (clip,) = clips
    assert (clip.start, clip.end) == pytest.approx((0.1, 9.15), abs=0.1)


@pytest.mark.parametrize("longest", [2.0, 5.0, 12.0, 30.0])
def test_no_clip_is_longer_than_asked(path: Path, speech: Sound, unbroken: Sound, longest: float) -> None:
    """Whatever the limit, clips keep it, keep their order, and lose next to no speech."""
    sound = np.concatenate([speech, unbroken, quiet(4), speech, quiet(1)])

    clips, duration = heard(write(path, sound), longest=longest)

    assert_in_order(clips, duration, longest)
    kept = sum(float(np.square(clip.samples).sum()) for clip in clips)
    assert kept >= 0.99 * float(np.square(sound).sum())


def test_unbroken_speech_is_cut_and_goes_on_without_a_gap(path: Path, unbroken: Sound) -> None:
    """Speech without a pause is cut between 10 and 30 seconds, and the next clip starts where the last one ends."""
    clips, _ = heard(write(path, unbroken))

    assert len(clips) >= 2
    assert all(clip.end - clip.start >= 10 for clip in clips[:-1])
    assert all(later.start - earlier.end <= 0.3 for earlier, later in pairwise(clips))


def test_neighbours_are_joined_and_strangers_are_not(path: Path, speech: Sound) -> None:
    """A pause of one second stays inside a clip, one of five seconds ends it."""
    sound = np.concatenate([speech[: 4 * RATE], quiet(1), speech[: 4 * RATE], quiet(5), speech[: 4 * RATE]])

    clips, _ = heard(write(path, sound))

    assert [round(clip.start) for clip in clips] == [0, 14]


def test_a_long_clip_ends_at_a_short_pause(path: Path, speech: Sound) -> None:
    """Clips are filled, but end at a pause rather than in a word: all of these end in silence."""
    clips, _ = heard(write(path, np.tile(speech, 6)))

    assert all(9 <= clip.end - clip.start <= 30 for clip in clips)
    assert all(float(np.abs(clip.samples[-RATE // 10 :]).max()) < 0.05 for clip in clips)


@pytest.mark.parametrize(
    "sound",
    [
        quiet(5),
        np.random.default_rng(0).normal(0, 0.1, 5 * RATE),
        np.sin(np.arange(5 * RATE) * 0.17) * 0.5,
        quiet(0.11),
    ],
    ids=["silence", "white noise", "a tone", "a short silence"],
)
def test_what_is_not_speech_gives_no_clips(path: Path, sound: Sound) -> None:
    """Silence, noise and tones are read to the end and give nothing to transcribe."""
    clips, duration = heard(write(path, sound))

    assert clips == []
    assert duration == pytest.approx(len(sound) / RATE)


def test_samples_that_are_no_numbers_are_cleaned(path: Path, speech: Sound) -> None:
    """NaN, infinity and overdriven values of a float recording never reach an engine."""
    sound = speech * 3
    sound[20_000:60_000:100] = np.nan
    sound[20_050:60_000:100] = np.inf

    clips, _ = heard(write(path, sound, subtype="FLOAT"))

    assert len(clips) == 1
    assert np.isfinite(clips[0].samples).all()
    assert np.abs(clips[0].samples).max() <= 1


@pytest.mark.parametrize("format", ["wav", "flac", "ogg", "m4a", "webm"])
def test_the_length_is_known_before_decoding(path: Path, speech: Sound, format: str) -> None:
    """The header's length is there for progress before the first clip; the duration grows while clips are read."""
    write(path, np.tile(speech, 5), format)

    with open_recording(path, max_seconds=MAX_SECONDS) as recording:
        assert recording.stated_seconds == pytest.approx(49.8, abs=0.1)
        assert recording.duration == 0
        next(recording.clips())
        assert 0 < recording.duration < 49


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("format", FORMATS)
def test_a_truncated_recording_is_an_error(path: Path, speech: Sound, format: str, keep: float) -> None:
    """A recording that was cut short is never transcribed as if it were whole."""
    content = write(path, speech, format).read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])

    with pytest.raises(UnreadableAudio):
        heard(path)


@pytest.mark.parametrize("keep", [0.5, 0.9])
@pytest.mark.parametrize("options", [{"movflags": "faststart"}, {"movflags": "frag_keyframe+empty_moov"}])
def test_a_truncated_stream_is_an_error(path: Path, speech: Sound, options: dict[str, str], keep: float) -> None:
    """An MP4 whose index comes first still opens when it was cut short, and is refused all the same."""
    content = write(path, speech, "m4a", **options).read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])

    with pytest.raises(UnreadableAudio):
        heard(path)


@pytest.mark.parametrize("format", FORMATS)
def test_rubbish_behind_the_end_is_ignored(path: Path, speech: Sound, format: str) -> None:
    """Bytes behind the end of the recording do no harm."""
    content = write(path, speech, format).read_bytes()
    path.write_bytes(content + np.random.default_rng(0).bytes(3_000))

    clips, _ = heard(path)

    assert [round(clip.end) for clip in clips] == [9]


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0xFFFFFFFF])
def test_a_wav_of_unknown_length_is_read_to_its_end(path: Path, speech: Sound, size: int) -> None:
    """A WAV written to a pipe has a placeholder for its length."""
    content = bytearray(write(path, speech).read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", size)
    path.write_bytes(content)

    _, duration = heard(path)

    assert duration == pytest.approx(len(speech) / RATE)


@pytest.mark.parametrize(
    "content",
    [
        b"no recording at all",
        b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n",
        b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0",
        b"RIFF\x24\0\0\0WAVE" + b"junk\0\0\0\0" * 2_000,
        b"fLaC" + bytes(500),
        b"OggS\0\x02" + bytes(20) + b"\x01\x1e\x01vorbis" + bytes(400),
        b"ID3\x04\0\0\0\0\0\0" + b"\xff\xfb\x90\x64" + bytes(20),
        b"\0\0\0\x20ftypM4A \0\0\0\0M4A isomiso2" + bytes(100),
        b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm" + bytes(100),
        b"%PDF-1.7",
    ],
)
def test_what_is_no_recording_is_refused(path: Path, content: bytes) -> None:
    """Text, playlists, pictures and empty shells of every container are unreadable, nothing worse."""
    path.write_bytes(content)

    with pytest.raises((UnreadableAudio, AudioTooShort)):
        heard(path)


def test_a_video_without_sound_says_so(path: Path) -> None:
    """A film needs a sound track to be transcribed."""
    with av.open(path, "w", format="mp4") as file:
        stream: Any = file.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 64
        for _ in range(5):
            file.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        file.mux(stream.encode(None))

    with pytest.raises(UnreadableAudio, match="holds no sound"):
        heard(path)


@pytest.mark.parametrize(
    ("sound", "error"), [(quiet(0), AudioTooShort), (quiet(0.05), AudioTooShort), (quiet(700), AudioTooLong)]
)
def test_the_length_has_bounds(path: Path, sound: Sound, error: type[InputError]) -> None:
    """Less than a tenth of a second is no recording, and more than the service accepts is refused."""
    with pytest.raises(error):
        heard(write(path, sound))


@pytest.mark.parametrize("rate", [1, 500, 800_000])
def test_a_rate_that_is_no_sound_is_refused(path: Path, rate: int) -> None:
    """A sample rate of 1 Hz would let a small file swell sixteen-thousandfold."""
    content = bytearray(write(path, quiet(1)).read_bytes())
    content[24:28] = struct.pack("<I", rate)
    path.write_bytes(content)

    with pytest.raises(UnreadableAudio):
        heard(path)


@pytest.mark.parametrize("format", FORMATS)
def test_a_damaged_recording_gives_clips_or_an_input_error(path: Path, speech: Sound, format: str) -> None:
    """Whatever a decoder trips over in damaged bytes, nothing but an `InputError` comes out."""
    whole, dice = write(path, speech[: 2 * RATE], format).read_bytes(), random.Random(0)
    for _ in range(12):
        damaged = bytearray(whole)
        for _ in range(6):
            damaged[dice.randrange(min(400, len(whole)))] = dice.randrange(256)
        path.write_bytes(damaged)
        try:
            clips, duration = heard(path)
        except InputError:
            continue
        assert_in_order(clips, duration, 30)


def test_an_empty_file_is_refused(path: Path) -> None:
    """No bytes are not a recording."""
    path.touch()

    with pytest.raises(EmptyInput):
        heard(path)


@pytest.mark.parametrize(("format", "before_decoding"), [("wav", True), ("m4a", True), ("aac", False)])
def test_too_long_is_told_by_the_header_where_it_can(
    path: Path, speech: Sound, format: str, before_decoding: bool
) -> None:
    """A length that the container states is enough to refuse; a guessed one is not, and then decoding stops."""
    write(path, np.tile(speech, 2), format)

    with ExitStack() as stack:
        if before_decoding:
            with pytest.raises(AudioTooLong, match="lasts 20 s"):
                stack.enter_context(open_recording(path, max_seconds=15))
        else:
            recording = stack.enter_context(open_recording(path, max_seconds=15))
            with pytest.raises(AudioTooLong):
                list(recording.clips())


def test_a_damaged_mp3_frame_is_skipped(path: Path, speech: Sound) -> None:
    """One bad frame in the middle costs that frame, as in any player."""
    content = bytearray(write(path, speech, "mp3").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(content)

    _, duration = heard(path)

    assert duration == pytest.approx(len(speech) / RATE, abs=0.3)


def test_a_recording_is_read_until_somebody_objects(path: Path) -> None:
    """Also when it is silent and gives no clip to stop at."""
    write(path, np.zeros(60 * RATE, np.float32))
    heard_of: list[int] = []

    def object_at_the_third() -> None:
        heard_of.append(1)
        if len(heard_of) == 3:
            raise Cancelled

    with open_recording(path, max_seconds=MAX_SECONDS, on_block=object_at_the_third) as recording:
        with pytest.raises(Cancelled):
            list(recording.clips())

        assert recording.duration < 10


def test_a_detector_forgets_the_recording_before(path: Path, speech: Sound) -> None:
    """The same recording gives the same clips, whatever was heard before it."""
    write(path, speech)
    first, _ = heard(path)
    with open_recording(path, max_seconds=MAX_SECONDS) as unfinished:
        next(unfinished.clips(longest=2))

    again, _ = heard(path)

    assert [(clip.start, clip.end) for clip in again] == [(clip.start, clip.end) for clip in first]


def test_a_recording_that_was_given_up_leaves_no_broken_detector(path: Path, speech: Sound) -> None:
    """What a failed step leaves behind is taken apart by the garbage collector in any order."""
    write(path, speech)
    for _ in range(20):
        with open_recording(path, max_seconds=MAX_SECONDS) as recording:
            clips = recording.clips(longest=2)
            next(clips)
        abandoned: list[Any] = [clips]
        abandoned.append(abandoned)
        del clips, recording, abandoned
        gc.collect()

    assert heard(path)[0]


def test_decoders_write_nothing_to_the_log(path: Path, speech: Sound) -> None:
    """Damage is reported as an error, and not a word of it goes to the process's own output."""
    content = bytearray(write(path, speech, "mp3").read_bytes())
    content[9_000:9_200] = bytes(200)
    path.write_bytes(content[:-3_000])
    code = (
        "import sys, pathlib, worker.media.audio as a, phi4.errors as e\n"
        "try:\n"
        "    with a.open_recording(pathlib.Path(sys.argv[1]), max_seconds=60) as r: list(r.clips())\n"
        "except e.UnreadableAudio: pass"
    )

    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)

    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize("mime", ["audio/flac", "video/mp4"])
def test_completeness_leaves_other_formats_to_their_decoders(path: Path, mime: str) -> None:
    """Only formats whose decoders overlook a missing end are checked beforehand."""
    path.write_bytes(b"anything")

    with path.open("rb") as file:
        check_whole(file, mime)

        assert file.tell() == 0
