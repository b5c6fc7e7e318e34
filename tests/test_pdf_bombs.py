"""A PDF that costs too much time or memory costs its own pages, and neither its worker nor the documents beside it."""

from __future__ import annotations

import os
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

from phi4.errors import UnreadablePdf
from tests.test_pdf import A4, MAX_PIXELS, document, drawn, stream, with_pages
from worker.media import pdf
from worker.media.drawer import Drawer, TooCostly

MEMORY = 128 << 20


@pytest.fixture(autouse=True)
def drawer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Drawer]:
    """A process of the test's own, with little of both."""
    pdf._DRAWER.end()
    drawer = Drawer(cpu_seconds=1, memory=MEMORY)
    monkeypatch.setattr(pdf, "_DRAWER", drawer)
    yield drawer
    drawer.end()
    assert drawing() == []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "input"


def drawing() -> list[psutil.Process]:
    """The processes that draw for this one."""
    return [one for one in psutil.Process().children() if "worker.media.drawing" in one.cmdline()]


def forms_in_forms(levels: int = 12, fan: int = 10) -> bytes:
    """A page that shows a form, which shows the next one ten times, and so on."""
    form = b"/Type/XObject/Subtype/Form/BBox[0 0 9 9]"
    next_one = [b"/Resources<</XObject<</F %d 0 R>>>>" % (6 + n) for n in range(levels)]
    forms = [stream(b"/F Do " * fan, form + resources) for resources in next_one]
    last = stream(b"0 0 9 9 re f " * 99, form)
    leaf = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]/Contents 4 0 R/Resources<</XObject<</F 5 0 R>>>>>>"
    tree = b"<</Type/Pages/Count 1/Kids[3 0 R]>>"
    return document(b"<</Type/Catalog/Pages 2 0 R>>", tree, leaf, stream(b"/F Do"), *forms, last)


def packed_thrice(megabytes: int = 160) -> bytes:
    """A page whose drawing is hundreds of megabytes of lines to be drawn."""
    packer = zlib.compressobj(9)
    line = b"0 0 m 9 9 l S " * (1 << 16)
    content = b"".join([packer.compress(line) for _ in range((megabytes << 20) // len(line))] + [packer.flush()])
    content = zlib.compress(zlib.compress(content, 9), 9)
    leaf = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]/Contents 4 0 R>>"
    filters = b"/Filter[/FlateDecode/FlateDecode/FlateDecode]"
    tree = b"<</Type/Pages/Count 1/Kids[3 0 R]>>"
    return document(b"<</Type/Catalog/Pages 2 0 R>>", tree, leaf, stream(content, filters))


BOMBS = {"forms in forms": forms_in_forms, "packed three times": packed_thrice}


@pytest.mark.parametrize("name", BOMBS)
def test_a_page_that_costs_too_much_is_an_error(path: Path, name: str) -> None:
    """A few kilobytes that would take hours and gigabytes."""
    path.write_bytes(BOMBS[name]())
    assert path.stat().st_size < 100_000

    [(number, page)] = pdf.pages(path, [1], max_pixels=MAX_PIXELS)

    assert number == 1
    assert isinstance(page, UnreadablePdf)
    assert "more time or memory" in page.message


def test_a_document_is_given_up_at_its_third_such_page(path: Path) -> None:
    """Or one of a thousand pages would hold up the others for hours."""
    path.write_bytes(forms_in_forms().replace(b"/Count 1/Kids[3 0 R]", b"/Count 4/Kids[3 0 R 3 0 R 3 0 R 3 0 R]"))
    found = []

    with pytest.raises(UnreadablePdf, match="more time or memory"):
        found.extend(pdf.pages(path, [1, 2, 3, 4], max_pixels=MAX_PIXELS))

    assert [type(page) for _, page in found] == [TooCostly, TooCostly]


def test_a_document_beside_it_goes_on(path: Path, tmp_path: Path) -> None:
    """It is opened again in the process that follows, and none of its pages is missing."""
    path.write_bytes(with_pages(A4, A4))
    (tmp_path / "bomb").write_bytes(forms_in_forms())
    innocent = pdf.pages(path, [1, 2], max_pixels=MAX_PIXELS)
    first = next(innocent)

    [(_, error)] = pdf.pages(tmp_path / "bomb", [1], max_pixels=MAX_PIXELS)

    assert isinstance(error, UnreadablePdf)
    assert isinstance(first[1], Image.Image)
    assert [number for number, page in innocent if isinstance(page, Image.Image)] == [2]


def test_a_page_whose_process_was_killed_is_drawn_by_the_next(path: Path) -> None:
    """By the kernel, say, when the machine has no memory left: it need not have been this page's fault."""
    path.write_bytes(with_pages(A4))
    drawn(path)
    [process] = drawing()

    process.kill()

    assert len(drawn(path)) == 1
    [other] = drawing()
    assert other.pid != process.pid


def test_it_is_not_stopped_by_what_stops_its_worker(path: Path) -> None:
    """Asked to end with its whole group, a worker still finishes what it has begun."""
    path.write_bytes(with_pages(A4))
    drawn(path)
    [process] = drawing()

    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(process.pid, number)

    assert len(drawn(path)) == 1
    assert [one.pid for one in drawing()] == [process.pid]


def test_it_ends_with_its_worker(path: Path, drawer: Drawer) -> None:
    """However that ended: nobody holds the other end of its pipes."""
    path.write_bytes(with_pages(A4))
    drawn(path)
    [process] = drawing()

    drawer.end()

    assert not process.is_running()


def test_what_was_used_so_far_is_not_held_against_a_page(path: Path) -> None:
    """Each has its own second."""
    path.write_bytes(with_pages(*[(500, 500)] * 6))  # small ones: a busy machine takes a multiple for each
    drawn(path)
    [process] = drawing()

    while sum(process.cpu_times()[:2]) < 1.5:
        drawn(path, range(1, 7))

    assert [one.pid for one in drawing()] == [process.pid]
