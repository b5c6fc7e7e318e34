"""Turns an untrusted PDF into upright RGB pages."""

from __future__ import annotations

import atexit
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from PIL import Image

from phi4.errors import EmptyInput, InputError, UnreadablePdf
from worker.media.drawer import Drawer, TooCostly

# An open document keeps every scan it has ever shown in memory; opening it anew lets them go.
_PAGES_PER_OPENING = 16
#: A document is given up at its third page that costs too much: it may have a thousand of them.
_MOST_COSTLY = 3
_TAIL_BYTES = 65_536
_END_OF_FILE = re.compile(rb"startxref\s+\d+")
_OBJECT = re.compile(rb"\d\s+obj\b")

_DRAWER = Drawer()
atexit.register(_DRAWER.end)


def page_count(path: Path) -> int:
    """Count the pages. Raises `EmptyInput`, `UnreadablePdf` or `EncryptedPdf`."""
    with _opened(path) as count:
        return count


def pages(
    path: Path, numbers: Iterable[int], *, dpi: int = 150, max_pixels: int
) -> Iterator[tuple[int, Image.Image | InputError]]:
    """Yield (number, RGB page with its annotations and form fields) for each number, which count from 1.

    A page that cannot be drawn is yielded as its error, so that the others still come. Pages that would pass
    `max_pixels` or `LONGEST_SIDE` are drawn smaller. Raises `EmptyInput`, `UnreadablePdf` or `EncryptedPdf`.
    """
    waiting, costly = iter(numbers), 0
    while batch := list(islice(waiting, _PAGES_PER_OPENING)):
        with _opened(path):
            for number in batch:
                page = _page_or_error(path, number, dpi=dpi, max_pixels=max_pixels)
                if isinstance(page, TooCostly) and (costly := costly + 1) == _MOST_COSTLY:
                    raise page
                yield number, page


def _page_or_error(path: Path, number: int, *, dpi: int, max_pixels: int) -> Image.Image | InputError:
    try:
        told, pixels = _DRAWER.ask("draw", str(path), number=number, dpi=dpi, max_pixels=max_pixels)
    except InputError as error:
        return error
    return Image.frombytes("RGB", tuple(told["size"]), pixels)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a document for the time of a block; gives the number of its pages."""
    _check_whole(path)
    try:
        told, _ = _DRAWER.ask("count", str(path))
        yield int(told["count"])
    finally:
        _DRAWER.forget(str(path))


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
