"""Decodes an untrusted recording, block by block, into mono float samples at 16 kHz."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from phi4.errors import AudioTooLong, EmptyInput, InputError, UnreadableAudio
from phi4.media_type import HEAD_BYTES, sniff
from worker.media.completeness import check_whole

Samples = NDArray[np.float32]

SAMPLE_RATE = 16_000

# The demuxer is named, never guessed: a playlist posing as a recording could otherwise make FFmpeg open other files.
_DEMUXERS = {
    "audio/wav": "wav",
    "audio/flac": "flac",
    "audio/ogg": "ogg",
    "audio/mpeg": "mp3",
    "audio/aac": "aac",
    "audio/mp4": "mp4",
    "video/mp4": "mp4",
    "video/webm": "webm",
}
# libsndfile also reads MP3, but its decoder writes to stderr past every switch.
_READ_BY_SOUNDFILE = {"audio/wav", "audio/flac", "audio/ogg"}
# Their containers state a length, and a time for every packet; of others FFmpeg may only estimate both.
_STATES_ITS_LENGTH = {"audio/mp4", "video/mp4", "video/webm"}
_FORGIVING = {"audio/mpeg"}  # each frame stands alone, and players skip a damaged one
_MOST_DAMAGED_FRAMES = 0.1
_UNKNOWN_FRAMES = 1 << 60
_LOWEST_RATE, _HIGHEST_RATE = 1_000, 768_000
_BLOCK_VALUES = 1 << 20
_LENGTH_TOLERANCE_SECONDS = 0.25
_SHORTEST_GAP_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Source:
    """An open recording. `seconds` is the length its header states, `is_estimate` when that is only a guess."""

    seconds: float | None
    is_estimate: bool
    frames: Iterator[av.AudioFrame]


@contextmanager
def opened(file: BinaryIO, *, max_seconds: float) -> Iterator[Source]:
    """Open a recording by its content. Raises `EmptyInput`, `UnreadableAudio` or `AudioTooLong` from the header."""
    head = file.read(HEAD_BYTES)
    if not head:
        raise EmptyInput
    media = sniff(head)
    if media is None or media.kind != "audio":
        raise UnreadableAudio
    check_whole(file, media.mime)
    with ExitStack() as stack:
        source = _open(file, media.mime, stack, max_seconds)
        if source.seconds is not None and source.seconds > max_seconds and not source.is_estimate:
            raise AudioTooLong(f"The recording lasts {source.seconds:.0f} s; at most {max_seconds:.0f} s are accepted.")
        yield source


def samples(source: Source) -> Iterator[Samples]:
    """Yield the recording as blocks of at most about a second, within [-1, 1]. Raises `UnreadableAudio`."""
    with unreadable_when_anything_fails():
        for frame in _resampled(source.frames):
            block = np.nan_to_num(frame.to_ndarray().reshape(-1), nan=0.0)
            yield np.clip(block, -1.0, 1.0).astype(np.float32, copy=False)


@contextmanager
def unreadable_when_anything_fails() -> Iterator[None]:
    """Give every complaint of a decoder fed with hostile bytes its one name, `UnreadableAudio`."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise UnreadableAudio(reason=str(error)) from error


def _open(file: BinaryIO, mime: str, stack: ExitStack, max_seconds: float) -> Source:
    if mime in _READ_BY_SOUNDFILE:
        sound = _sound_file(file, stack)
        # A WAV written to a pipe may declare no sound at all; FFmpeg reads such a file to its end.
        if sound is not None and not (mime == "audio/wav" and sound.frames == 0):
            return _from_sound_file(sound)
    with unreadable_when_anything_fails():
        file.seek(0)
        container = stack.enter_context(av.open(file, format=_DEMUXERS[mime]))
        return _from_container(container, mime, max_seconds)


def _sound_file(file: BinaryIO, stack: ExitStack) -> Any:
    file.seek(0)
    try:
        return stack.enter_context(soundfile.SoundFile(file.fileno(), closefd=False))
    except soundfile.LibsndfileError:
        return None  # a codec only FFmpeg knows, or no sound at all, which FFmpeg will find as well


def _from_sound_file(sound: Any) -> Source:
    _check_rate(sound.samplerate)
    seconds = sound.frames / sound.samplerate if sound.frames < _UNKNOWN_FRAMES else None
    return Source(seconds=seconds, is_estimate=False, frames=_sound_file_frames(sound))


def _sound_file_frames(sound: Any) -> Iterator[av.AudioFrame]:
    block_frames, read = max(1, min(sound.samplerate, _BLOCK_VALUES // sound.channels)), 0
    while len(block := sound.read(block_frames, dtype="float32", always_2d=True)):
        read += len(block)
        mono = np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0).mean(axis=1, dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(mono[np.newaxis, :], format="flt", layout="mono")
        frame.sample_rate = sound.samplerate
        yield frame
    if read < sound.frames < _UNKNOWN_FRAMES:
        raise UnreadableAudio("The recording is cut short: its end is missing.")


def _from_container(container: Any, mime: str, max_seconds: float) -> Source:
    if not container.streams.audio:
        raise UnreadableAudio("The file holds no sound.")
    stream = container.streams.audio[0]
    _check_rate(stream.rate)
    seconds, is_from_zero = _stated_seconds(container, stream, mime)
    is_estimate = mime not in _STATES_ITS_LENGTH
    frames = _container_frames(container, stream, is_forgiving=mime in _FORGIVING)
    if seconds is not None and not is_estimate:
        frames = _to_the_end(frames, seconds, is_from_zero=is_from_zero)
    if not is_estimate:
        frames = _in_time(frames, max_seconds)
    return Source(seconds=seconds, is_estimate=is_estimate, frames=frames)


def _stated_seconds(container: Any, stream: Any, mime: str) -> tuple[float | None, bool]:
    """The length in seconds that the header states, and whether it counts from time 0 or from the first sound."""
    # WebM knows no length of a stream: FFmpeg fills the container's in where sound begins late.
    if stream.duration is not None and mime != "video/webm":
        return float(stream.duration * stream.time_base), False
    # The container's length may be that of its pictures, so it counts only where there are none.
    if container.duration is not None and len(container.streams) == 1:
        return float(container.duration) / av.time_base, True
    return None, True


def _container_frames(container: Any, stream: Any, *, is_forgiving: bool) -> Iterator[av.AudioFrame]:
    packets = damaged = 0
    for packet in container.demux(stream):
        packets += 1
        try:
            yield from packet.decode()
        except av.error.InvalidDataError:
            damaged += 1
            if not is_forgiving:
                raise
    if damaged > packets * _MOST_DAMAGED_FRAMES + 1:
        raise UnreadableAudio(f"The recording is damaged: {damaged} of {packets} frames cannot be decoded.")


def _to_the_end(frames: Iterator[av.AudioFrame], seconds: float, *, is_from_zero: bool) -> Iterator[av.AudioFrame]:
    """Pass frames on, and raise at the end when they stop before the stated length."""
    first, end = math.inf, 0.0
    for frame in frames:
        if frame.time is not None:
            first, end = min(first, frame.time), max(end, frame.time + frame.samples / frame.sample_rate)
        yield frame
    length = end if is_from_zero else end - first
    if first < math.inf and length < seconds - _LENGTH_TOLERANCE_SECONDS:
        raise UnreadableAudio("The recording is cut short: its end is missing.")


def _in_time(frames: Iterator[av.AudioFrame], max_seconds: float) -> Iterator[av.AudioFrame]:
    """Pass frames on, with silence wherever the file has no sound: before the first one, and in gaps.

    Raises `AudioTooLong` before a silence that ends after `max_seconds`.
    """
    passed = 0.0  # seconds; what overlaps only shortens the next gap, so nothing adds up
    for frame in frames:
        if frame.time is not None and frame.time - passed > _SHORTEST_GAP_SECONDS:
            if frame.time > max_seconds:
                raise AudioTooLong
            yield from _silence(frame.time - passed)
            passed = frame.time
        passed += frame.samples / frame.sample_rate
        yield frame


def _silence(seconds: float) -> Iterator[av.AudioFrame]:
    left = round(seconds * SAMPLE_RATE)
    while left > 0:
        count = min(left, SAMPLE_RATE)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, count), np.float32), format="flt", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        yield frame
        left -= count


def _resampled(frames: Iterator[av.AudioFrame]) -> Iterator[av.AudioFrame]:
    resampler, shape = None, None
    for frame in frames:
        if shape != (shape := (frame.format.name, frame.layout.name, frame.sample_rate)):
            # The first frame, silence put in, or a stream that changes its form midway, as chained and live ones do.
            yield from resampler.resample(None) if resampler else ()
            _check_rate(frame.sample_rate)
            resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        frame.pts = None
        yield from resampler.resample(frame) if resampler else ()
    yield from resampler.resample(None) if resampler else ()


def _check_rate(rate: int) -> None:
    if not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
        raise UnreadableAudio(f"The recording has {rate} samples a second; that is not sound.")
