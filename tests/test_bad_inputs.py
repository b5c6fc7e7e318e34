"""Files that nobody can work on: the job fails with a code to program against, and the workers go on."""

from __future__ import annotations

import base64
import io
import json
import struct
import wave
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from tests.conftest import ROOT, Service, pdf, png
from tests.scripted_jobs import accepted, document, prompted

INPUTS = ROOT / "examples/inputs"
TALK = (INPUTS / "talk.mp3").read_bytes()


def jpeg() -> bytes:
    """A photograph."""
    return (INPUTS / "sign.jpg").read_bytes()


def noise() -> bytes:
    """A picture that does not compress."""
    file = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(file, "PNG")
    return file.getvalue()


def bomb() -> bytes:
    """A small PNG that says it is 30 000 × 30 000 pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def wav(seconds: float) -> bytes:
    """A recording of silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(bytes(int(seconds * 32_000)))
    return file.getvalue()


def encrypted() -> bytes:
    """A PDF that asks for a password."""
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Count 0/Kids[]>>"]
    content, offsets = b"%PDF-1.7\n", []
    for number, one in enumerate(objects, 1):
        offsets.append(len(content))
        content += b"%d 0 obj\n%s\nendobj\n" % (number, one)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    rights = b"/Encrypt<</Filter/Standard/V 1/R 2/P -4/O<%s>/U<%s>>>/ID[<00><00>]" % (b"11" * 32, b"22" * 32)
    trailer = b"trailer\n<</Size 3/Root 1 0 R%s>>\nstartxref\n%d\n%%%%EOF\n" % (rights, len(content))
    return content + b"xref\n0 3\n0000000000 65535 f \n" + table + trailer


#: name -> type of job, file, params, the code of the error
BAD: dict[str, tuple[str, bytes, dict[str, Any], str]] = {
    "truncated PNG": ("ocr", noise()[:2_000], {}, "unreadable_image"),
    "truncated JPEG": ("ocr", jpeg()[:50_000], {}, "unreadable_image"),
    "PNG header and rubbish": ("ocr", b"\x89PNG\r\n\x1a\n" + b"rubbish" * 100, {}, "unreadable_image"),
    "PNG of 30 000 × 30 000": ("ocr", bomb(), {}, "image_too_large"),
    "PNG of 1 × 1": ("ocr", png(1, 1), {}, "image_too_small"),
    "PNG of 9 × 2 000": ("ocr", png(9, 2_000), {}, "image_too_small"),
    "truncated PDF": ("ocr", pdf(3)[:-400], {}, "unreadable_pdf"),
    "PDF header and rubbish": ("ocr", b"%PDF-1.7\n" + b"rubbish " * 500, {}, "unreadable_pdf"),
    "encrypted PDF": ("ocr", encrypted(), {}, "encrypted_pdf"),
    "PDF of tiny pages": ("ocr", document(2, 2), {}, "image_too_small"),
    "page out of range": ("ocr", pdf(3), {"pages": "2-4"}, "page_out_of_range"),
    "page out of range of a picture": ("ocr", png(), {"pages": "2"}, "page_out_of_range"),
    "question over a damaged picture": ("vqa", noise()[:2_000], {"question": "?"}, "unreadable_image"),
    "question over a tiny page": ("vqa", document(300, 2), {"question": "?"}, "image_too_small"),
    "question over a page that is not there": ("vqa", pdf(1), {"question": "?", "pages": "2"}, "page_out_of_range"),
    "truncated WAV": ("asr", wav(2)[:-100], {}, "unreadable_audio"),
    "WAV of no sound": ("asr", wav(0), {}, "audio_too_short"),
    "WAV of a twentieth of a second": ("asr", wav(0.05), {}, "audio_too_short"),
    "truncated MP3": ("asr", TALK[: len(TALK) // 2], {}, "unreadable_audio"),
    "FLAC header and rubbish": ("asr", b"fLaC" + bytes(500), {}, "unreadable_audio"),
    "MP4 without a track": ("asr", b"\0\0\0\x18ftypisom\0\0\0\0isomiso2" + bytes(100), {}, "unreadable_audio"),
}


@pytest.fixture(scope="module", autouse=True)
def workers_go_on(service: Service) -> Iterator[None]:
    """After all of this module's files the same workers still serve."""

    def names() -> set[str]:
        return {w["name"] for w in service.http.get("/health").json()["workers"]}

    before = names()
    yield
    assert service.ended(prompted(service, "read"))["status"] == "completed"
    assert before <= names()


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_fails_its_job(service: Service, name: str) -> None:
    """The job ends as failed, for good, with a stable code, in the preparation, by the input's fault."""
    job_type, file, params, code = BAD[name]
    request = {"data": {"type": job_type, "params": json.dumps(params)}, "files": {"file": ("input", file)}}

    job = accepted(service.http.post("/v1/jobs", headers={"Prefer": "wait=20"}, **request))  # type: ignore[arg-type]

    assert (job["status"], job.get("error", {}).get("code")) == ("failed", code), job
    assert (job["error"]["category"], job["error"]["phase"], job["error"]["retryable"]) == ("input", "prepare", False)
    assert len(job["error"]["message"]) > 20
    assert str(service.data_dir) not in json.dumps(job)


def test_one_bad_file_among_good_ones_fails_the_job(service: Service) -> None:
    """A damaged file could be any of its pages, so nothing is read rather than something left out."""
    files = [{"data": base64.b64encode(file).decode()} for file in (png(), noise()[:2_000])]

    job = accepted(service.http.post("/v1/jobs", json={"type": "ocr", "input": files}, headers={"Prefer": "wait=20"}))

    assert (job["status"], job["error"]["code"]) == ("failed", "unreadable_image")
