"""Draws the pages of untrusted PDFs with PDFium, in a process that `drawer` starts and that may die of one.

A document of 4 kB can make PDFium take gigabytes and hours, and PDFium cannot be told to stop: so the system stops it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO, cast

from PIL.Image import Image
from pypdfium2 import PdfDocument, PdfiumError
from pypdfium2.raw import FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY

from phi4.errors import EncryptedPdf, ImageTooSmall, InputError, PageOutOfRange, UnreadablePdf
from worker.media.sizes import LONGEST_SIDE, MIN_SIDE, is_thin

_POINTS_PER_INCH = 72
#: Documents that are kept open beside each other, for the threads that draw in turn.
_MOST_OPEN = 8


class Documents:
    """Open documents by path, the one that was used last at the end."""

    def __init__(self) -> None:
        self._open: dict[str, Any] = {}

    def count(self, path: str) -> int:
        """Count a document's pages. Raises `UnreadablePdf`, `EncryptedPdf`."""
        return len(self._opened(path))

    def draw(self, path: str, number: int, *, dpi: int, max_pixels: int) -> Image:
        """Draw one page in RGB, counted from 1. Raises `InputError`."""
        document = self._opened(path)
        if not 1 <= number <= len(document):
            raise PageOutOfRange(f"Page {number} does not exist; the document has {len(document)}.")
        try:
            page = document.get_page(number - 1)
        except PdfiumError as error:
            raise UnreadablePdf(f"Page {number} is damaged.", reason=str(error)) from error
        try:
            return _rendered(page, _scale(page.get_size(), dpi=dpi, max_pixels=max_pixels))
        finally:
            page.close()

    def close(self, path: str) -> None:
        """Close a document, if it is open."""
        if document := self._open.pop(path, None):
            document.close()

    def _opened(self, path: str) -> Any:
        document = self._open.pop(path, None) or _open(path)
        self._open[path] = document
        if len(self._open) > _MOST_OPEN:
            self.close(next(iter(self._open)))
        return document


def _open(path: str) -> Any:
    try:
        document = PdfDocument(Path(path))
    except PdfiumError as error:
        raise _named(error, path) from error
    try:
        document.init_forms()
        if len(document) == 0:
            raise UnreadablePdf("The PDF has no pages.")
    except (PdfiumError, InputError) as error:
        document.close()
        raise error if isinstance(error, InputError) else _named(error, path) from error
    return document


def _named(error: Any, path: str) -> InputError:
    # Of a file without pages PDFium sets no error, and the last one may have been another file's.
    is_locked = error.err_code in (FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY) and b"/Encrypt" in Path(path).read_bytes()
    return EncryptedPdf() if is_locked else UnreadablePdf(reason=str(error))


def _scale(size: tuple[float, float], *, dpi: int, max_pixels: int) -> float:
    """Choose pixels per point so that the page, its sides rounded up, stays within every limit."""
    width, height = size
    if not (math.isfinite(width * height) and width > 0 and height > 0):
        raise ImageTooSmall("The page has no area.")
    scale = min(dpi / _POINTS_PER_INCH, (LONGEST_SIDE - 1) / max(size), math.sqrt(max_pixels / (width * height)))
    while math.ceil(width * scale) * math.ceil(height * scale) > max_pixels:
        scale *= 0.99
    if min(width, height) * scale < MIN_SIDE or is_thin(width, height):
        raise ImageTooSmall(f"The page is {width:g} × {height:g} points; that is too small to be read.")
    return scale


def _rendered(page: Any, scale: float) -> Image:
    try:
        bitmap = page.render(scale=scale, rev_byteorder=True)
    except (PdfiumError, ValueError) as error:
        raise UnreadablePdf("The page cannot be drawn.", reason=str(error)) from error
    try:
        return cast(Image, bitmap.to_pil().convert("RGB"))
    finally:
        bitmap.close()


# -- the process


def main(cpu_seconds: int, memory: int) -> None:
    """Answer requests, one a line, until there are no more: a line of JSON, and as many bytes as that says."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints is no answer
    _be_confined(memory)
    documents = Documents()
    for line in sys.stdin.buffer:
        _allow(cpu_seconds)
        _answer(documents, json.loads(line), answers)


def _be_confined(memory: int) -> None:
    """Take this much more memory at most, be the first to go when there is none, and leave it to the worker to end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, ValueError):
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory, resource.RLIM_INFINITY))


def _allow(cpu_seconds: int) -> None:
    """Let the system end this process when the request to come takes longer; it counts what was used so far too."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + cpu_seconds, hard))


def _answer(documents: Documents, request: dict[str, Any], answers: BinaryIO) -> None:
    pixels = b""
    try:
        match request.pop("do"):
            case "count":
                told: dict[str, Any] = {"count": documents.count(**request)}
            case "close":
                documents.close(**request)
                told = {}
            case _:
                page = documents.draw(**request)
                pixels = page.tobytes()
                told = {"size": page.size}
    except InputError as error:
        told = {"error": error.code, "message": error.message, "details": error.details}
    except MemoryError:
        raise SystemExit(1) from None
    except Exception as error:
        told = {"fault": f"{type(error).__name__}: {error}"}
    answers.write(json.dumps(told | {"bytes": len(pixels)}).encode() + b"\n" + pixels)
    answers.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
