"""What kind of file this is, told by its first bytes; names and declared types are never believed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from phi4.params import JobType, chat_media

Kind = Literal["image", "pdf", "audio"]

#: How many bytes from the start of a file `sniff` looks at.
HEAD_BYTES = 8_192


@dataclass(frozen=True, slots=True)
class MediaType:
    """A file the service can work on: its kind, and its MIME type as registered."""

    kind: Kind
    mime: str


#: Which kinds of file each type of job takes.
KINDS: dict[JobType, frozenset[Kind]] = {
    "ocr": frozenset({"image", "pdf"}),
    "vqa": frozenset({"image", "pdf"}),
    "asr": frozenset({"audio"}),
    "chat": frozenset({"image", "pdf", "audio"}),
}

_AAC = MediaType("audio", "audio/aac")
_FLAC = MediaType("audio", "audio/flac")
_MP3 = MediaType("audio", "audio/mpeg")
_MP4_BRANDS = rb"isom|iso[2-9]|mp4[12v]|M4A |M4B |M4V |avc1|dash|MSNV|f4v |F4A "
#: The first pattern that matches at the start of the file wins. BMP needs its zeros and a known header size, since
#: "BM" alone also begins plain text.
_SIGNATURES: tuple[tuple[re.Pattern[bytes], MediaType], ...] = tuple(
    (re.compile(pattern, re.DOTALL), media)
    for pattern, media in (
        (rb"\x89PNG\r\n\x1a\n", MediaType("image", "image/png")),
        (rb"\xff\xd8\xff", MediaType("image", "image/jpeg")),
        (rb"RIFF.{4}WEBPVP8", MediaType("image", "image/webp")),
        (rb"GIF8[79]a", MediaType("image", "image/gif")),
        (rb"II[*+]\0|MM\0[*+]", MediaType("image", "image/tiff")),
        (rb"BM.{4}\0{4}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", MediaType("image", "image/bmp")),
        (rb".{0,1019}%PDF-", MediaType("pdf", "application/pdf")),
        (rb"(RIFF|RF64).{4}WAVE", MediaType("audio", "audio/wav")),
        (rb"fLaC", _FLAC),
        (rb"OggS.{0,60}(\x01vorbis|OpusHead|\x7fFLAC)", MediaType("audio", "audio/ogg")),
        (rb".{4}ftyp(M4A |M4B |F4A )", MediaType("audio", "audio/mp4")),
        (rb".{4}ftyp(" + _MP4_BRANDS + rb")", MediaType("audio", "video/mp4")),
        (rb"\x1a\x45\xdf\xa3.{0,80}\x42\x82.{1,8}webm", MediaType("audio", "video/webm")),
    )
)


def sniff(head: bytes) -> MediaType | None:
    """Name the type of a file from its first `HEAD_BYTES` bytes, or None when the service does not take it."""
    if head.startswith(b"ID3"):
        return _after_id3(head)
    for pattern, media in _SIGNATURES:
        if pattern.match(head):
            return media
    return _mpeg_stream(head)


def kinds_for(job_type: JobType, params: Mapping[str, Any], number: int) -> frozenset[Kind]:
    """Say which kinds of file input `number` of a job may be: in a chat, what the messages take it for."""
    if job_type != "chat":
        return KINDS[job_type]
    taken_for = {kind for n, kind in chat_media(params) if n == number}
    return KINDS["asr"] if taken_for == {"audio"} else KINDS["vqa"] if taken_for == {"image"} else frozenset()


def id3_bytes(head: bytes) -> int:
    """Measure the ID3v2 tag at the start of a file, in bytes; 0 when there is none."""
    if not head.startswith(b"ID3"):
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size


def _after_id3(head: bytes) -> MediaType:
    """Look behind an ID3v2 tag; a cover picture or padding hides what follows, and then it is MP3 in practice."""
    start = id3_bytes(head)
    if head[start : start + 4] == b"fLaC":
        return _FLAC
    return _mpeg_stream(head[start:]) or _MP3


def _mpeg_stream(head: bytes) -> MediaType | None:
    """Recognise a bare MPEG audio stream by its first frame header; only layer III and ADTS, as 0xFFFE is a BOM."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    if head[1] & 0xF6 == 0xF0:
        return _AAC if (head[2] >> 2) & 0x0F < 13 else None
    is_layer_3, has_version = head[1] & 0x06 == 0x02, head[1] & 0x18 != 0x08
    has_rates = head[2] & 0xF0 != 0xF0 and head[2] & 0x0C != 0x0C
    return _MP3 if is_layer_3 and has_version and has_rates else None
