"""`sniff` names a file by its first bytes, and by nothing else."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from PIL import Image

from phi4.media_type import KINDS, MediaType, id3_bytes, sniff


def image_bytes(format: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(file, format=format)
    return file.getvalue()


def mp4(brand: bytes) -> bytes:
    return b"\0\0\0\x20ftyp" + brand + b"\0\0\0\0isomiso2"


def ogg(first_packet: bytes) -> bytes:
    return b"OggS\0\x02" + bytes(20) + b"\x01\x1e" + first_packet


def ebml(document_type: bytes) -> bytes:
    fields = b"\x42\x86\x81\x01\x42\xf7\x81\x01\x42\x82" + bytes([0x80 | len(document_type)]) + document_type
    return b"\x1a\x45\xdf\xa3" + bytes([0x80 | len(fields)]) + fields


def with_id3(rest: bytes, *, size: int = 300) -> bytes:
    return b"ID3\x04\0\0" + bytes([0, 0, size >> 7, size & 0x7F]) + bytes(size) + rest


@pytest.mark.parametrize(
    ("head", "kind", "mime"),
    [
        (image_bytes("PNG"), "image", "image/png"),
        (image_bytes("JPEG"), "image", "image/jpeg"),
        (image_bytes("WEBP"), "image", "image/webp"),
        (image_bytes("BMP"), "image", "image/bmp"),
        (image_bytes("GIF"), "image", "image/gif"),
        (image_bytes("TIFF"), "image", "image/tiff"),
        (b"MM\0*\0\0\0\x08", "image", "image/tiff"),
        (b"%PDF-1.7\n", "pdf", "application/pdf"),
        (b"\r\n junk before it \n%PDF-1.4\n", "pdf", "application/pdf"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "audio", "audio/wav"),
        (b"RF64\xff\xff\xff\xffWAVEds64", "audio", "audio/wav"),
        (b"fLaC\0\0\0\x22", "audio", "audio/flac"),
        (ogg(b"\x01vorbis"), "audio", "audio/ogg"),
        (ogg(b"OpusHead"), "audio", "audio/ogg"),
        (b"\xff\xfb\x90\x64" + bytes(400), "audio", "audio/mpeg"),
        (b"\xff\xfa\x90\x64" + bytes(400), "audio", "audio/mpeg"),
        (b"\xff\xe3\x48\x44" + bytes(400), "audio", "audio/mpeg"),
        (with_id3(b"\xff\xfb\x90\x64"), "audio", "audio/mpeg"),
        (with_id3(b"\xff\xf1\x50\x80"), "audio", "audio/aac"),
        (with_id3(b"fLaC\0\0\0\x22"), "audio", "audio/flac"),
        (with_id3(b"", size=9_000)[:8_192], "audio", "audio/mpeg"),
        (b"\xff\xf1\x50\x80\x2e\x7f\xfc", "audio", "audio/aac"),
        (mp4(b"M4A "), "audio", "audio/mp4"),
        (mp4(b"isom"), "audio", "video/mp4"),
        (mp4(b"mp42"), "audio", "video/mp4"),
        (ebml(b"webm"), "audio", "video/webm"),
    ],
)
def test_an_accepted_file_is_named(head: bytes, kind: str, mime: str) -> None:
    """Every accepted format is told by its first bytes."""
    assert sniff(head) == MediaType(kind, mime)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x89PN",
        b"just text",
        b"BMW builds cars, and this is a text about them.",
        "UTF-16 text".encode("utf-16"),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"#EXTM3U\n#EXT-X-VERSION:3\n",
        b"PK\x03\x04" + bytes(30),
        b"RIFF\x24\0\0\0AVI LIST",
        ogg(b"\x80theora"),
        mp4(b"heic"),
        mp4(b"avif"),
        mp4(b"qt  "),
        ebml(b"matroska"),
        b"\xff\xff\xff\xff" * 8,
        b"%!PS-Adobe-3.0",
        b"\0" * 8_192,
    ],
)
def test_anything_else_is_refused(head: bytes) -> None:
    """A format that is not on the list has no media type, however close it looks."""
    assert sniff(head) is None


def test_pdf_marker_counts_only_within_the_first_kilobyte() -> None:
    """PDF readers look for the header in the first 1 024 bytes, and so does `sniff`."""
    assert sniff(b" " * 1_019 + b"%PDF-1.4") == MediaType("pdf", "application/pdf")
    assert sniff(b" " * 1_020 + b"%PDF-1.4") is None


def test_the_size_of_an_id3_tag_is_measured_in_seven_bit_bytes() -> None:
    """The four size bytes of an ID3v2 tag carry seven bits each."""
    assert id3_bytes(with_id3(b"", size=300)) == 310
    assert id3_bytes(b"fLaC") == 0


def test_each_type_of_job_names_the_kinds_it_takes() -> None:
    """Vision jobs take images and PDFs, speech jobs take recordings, and a chat takes all of them."""
    kinds = {job_type: set(taken) for job_type, taken in KINDS.items()}

    assert kinds == {
        "ocr": {"image", "pdf"},
        "vqa": {"image", "pdf"},
        "asr": {"audio"},
        "chat": {"image", "pdf", "audio"},
    }


def test_sniffing_needs_no_media_library() -> None:
    """The API sniffs uploads, and it has neither Pillow nor an audio library."""
    code = "import sys, phi4.media_type; print(sorted({'PIL', 'av', 'soundfile', 'numpy'} & set(sys.modules)))"

    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert out.strip() == "[]"
