"""Turns an untrusted PDF into upright RGB pages."""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, cast

from PIL.Image import Image
from pypdfium2 import PdfDocument, PdfiumError
from pypdfium2.raw import FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY

from phi4.errors import EmptyInput, EncryptedPdf, ImageTooSmall, InputError, PageOutOfRange, UnreadablePdf
from worker.media.images import MIN_SIDE, is_thin

#: No page is rendered larger than this on its long side, in pixels; a poster is scaled down to it.
LONGEST_SIDE = 4_000

_POINTS_PER_INCH = 72
# An open document keeps every scan it has ever shown in memory; opening it anew lets them go.
_PAGES_PER_OPENING = 16
_TAIL_BYTES = 65_536
_END_OF_FILE = re.compile(rb"startxref\s+\d+")
_OBJECT = re.compile(rb"\d\s+obj\b")

# PDFium keeps global state: no two threads may be inside it, not even with different documents. Re-entrant, because
# a generator that is thrown away closes its document wherever the thread happens to be.
_PDFIUM = threading.RLock()


def page_count(path: Path) -> int:
    """Count the pages. Raises `EmptyInput`, `UnreadablePdf` or `EncryptedPdf`."""
    with _opened(path) as document, _PDFIUM:
        return len(document)


def pages(
    path: Path, numbers: Iterable[int], *, dpi: int = 150, max_pixels: int
) -> Iterator[tuple[int, Image | InputError]]:
    """Yield (number, RGB page with its annotations and form fields) for each number, which count from 1.

    A page that cannot be drawn is yielded as its error, so that the others still come. Pages that would pass
    `max_pixels` or `LONGEST_SIDE` are drawn smaller. Raises `EmptyInput`, `UnreadablePdf` or `EncryptedPdf`.
    """
    waiting = iter(numbers)
    while batch := list(islice(waiting, _PAGES_PER_OPENING)):
        with _opened(path) as document:
            for number in batch:
                yield number, _page_or_error(document, number, dpi=dpi, max_pixels=max_pixels)


def _page_or_error(document: Any, number: int, *, dpi: int, max_pixels: int) -> Image | InputError:
    try:
        with _PDFIUM:
            return _draw(document, number, dpi=dpi, max_pixels=max_pixels)
    except InputError as error:
        return error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    _check_whole(path)
    document = _open(path)
    try:
        yield document
    finally:
        with _PDFIUM:
            document.close()


def _check_whole(path: Path) -> None:
    """Refuse a file that was cut short: PDFium would repair it and quietly return fewer pages."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            raise EmptyInput
        file.seek(max(0, size - _TAIL_BYTES))
        tail = file.read()
    ends = [match.end() for match in _END_OF_FILE.finditer(tail)]
    if not ends or _OBJECT.search(tail, ends[-1]):
        raise UnreadablePdf("The PDF is cut short: its end is missing.")


def _open(path: Path) -> Any:
    with _PDFIUM:
        try:
            document = PdfDocument(path)
        except PdfiumError as error:
            raise _named(error) from error
        try:
            document.init_forms()
            if len(document) == 0:
                raise UnreadablePdf("The PDF has no pages.")
        except (PdfiumError, InputError) as error:
            document.close()
            raise error if isinstance(error, InputError) else _named(error) from error
        return document


def _named(error: Any) -> InputError:
    is_locked = error.err_code in (FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY)
    return EncryptedPdf() if is_locked else UnreadablePdf(reason=str(error))


def _draw(document: Any, number: int, *, dpi: int, max_pixels: int) -> Image:
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
