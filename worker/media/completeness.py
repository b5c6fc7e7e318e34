"""Checks that a recording still has all the bytes its header promises, where the decoders would not notice."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import BinaryIO

from phi4.errors import UnreadableAudio
from phi4.media_type import id3_bytes

# Writers that cannot seek back leave a placeholder as the size: 0, 2³²-1, or a little under 2³¹.
_SMALLEST_PLACEHOLDER = 0x7FFFF000
_MOST_WAV_CHUNKS = 1_000
_OGG_TAIL_BYTES = 131_072  # two pages of the largest size
_OGG_PAGE_HEADER = 27
_FIRST_MP3_FRAME_BYTES = 1_441
_HAS_FRAMES, _HAS_BYTES = 1, 2


def check_whole(file: BinaryIO, mime: str) -> None:
    """Raise `UnreadableAudio` when the file of this type was cut short; leaves the position anywhere."""
    check = _CHECKS.get(mime)
    if check is not None:
        check(file, file.seek(0, os.SEEK_END))


def _check_wav(file: BinaryIO, size: int) -> None:
    position, long_data_size = 12, None
    for _ in range(_MOST_WAV_CHUNKS):
        file.seek(position)
        chunk = file.read(24)
        name, length = chunk[:4], int.from_bytes(chunk[4:8], "little")
        if name == b"ds64":
            long_data_size = int.from_bytes(chunk[16:24], "little")
        if name == b"data":
            return _check_wav_data(length, long_data_size, held=size - position - 8)
        if len(chunk) < 8:
            break
        position += 8 + length + length % 2
    raise UnreadableAudio("The WAV file has no sound in it: its data chunk is missing.")


def _check_wav_data(length: int, long_length: int | None, *, held: int) -> None:
    if length >= _SMALLEST_PLACEHOLDER:
        length = long_length or 0
    if length > held:
        raise UnreadableAudio(f"The recording is cut short: {length} bytes of sound were promised, {held} are there.")


def _check_ogg(file: BinaryIO, size: int) -> None:
    file.seek(max(0, size - _OGG_TAIL_BYTES))
    tail = file.read()
    at = tail.rfind(b"OggS")
    page = tail[at:] if at >= 0 else b""
    if page and len(page) < _ogg_page_bytes(page):
        raise UnreadableAudio("The recording is cut short: its last page is not whole.")


def _ogg_page_bytes(page: bytes) -> int:
    segments = page[26] if len(page) >= _OGG_PAGE_HEADER else 1
    return _OGG_PAGE_HEADER + segments + sum(page[_OGG_PAGE_HEADER : _OGG_PAGE_HEADER + segments])


def _check_mp3(file: BinaryIO, size: int) -> None:
    """Compare with the byte count that most encoders leave in the first frame; without one nobody can tell."""
    file.seek(0)
    start = id3_bytes(file.read(10))
    file.seek(start)
    frame = file.read(256)
    tag = max(frame.find(b"Xing"), frame.find(b"Info"))
    flags = int.from_bytes(frame[tag + 4 : tag + 8], "big") if tag > 0 else 0
    if not flags & _HAS_BYTES:
        return
    at = tag + (12 if flags & _HAS_FRAMES else 8)
    if start + int.from_bytes(frame[at : at + 4], "big") > size + _FIRST_MP3_FRAME_BYTES:
        raise UnreadableAudio("The recording is cut short: its end is missing.")


_CHECKS: dict[str, Callable[[BinaryIO, int], None]] = {
    "audio/wav": _check_wav,
    "audio/ogg": _check_ogg,
    "audio/mpeg": _check_mp3,
}
