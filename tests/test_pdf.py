"""PDF files become RGB pages one by one, or an error that says what is wrong with the document or the page."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from phi4.errors import EmptyInput, EncryptedPdf, ImageTooSmall, InputError, PageOutOfRange, UnreadablePdf
from worker.media.pdf import page_count, pages
from worker.media.sizes import LONGEST_SIDE

MAX_PIXELS = 100_000_000
A4 = (595, 842)
RED_SQUARE = b"1 0 0 rg 0 0 100 100 re f"


def document(*objects: bytes, trailer: bytes = b"") -> bytes:
    """Write a PDF whose objects count from 1, the first being the catalogue."""
    file, offsets = b"%PDF-1.7\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(file))
        file += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    end = b"trailer\n<</Size %d/Root 1 0 R%s>>\nstartxref\n%d\n%%%%EOF\n" % (size, trailer, len(file))
    return file + b"xref\n0 %d\n0000000000 65535 f \n" % size + table + end


def stream(data: bytes, entries: bytes = b"") -> bytes:
    return b"<<%s/Length %d>>stream\n%s\nendstream" % (entries, len(data), data)


def with_pages(*sizes: tuple[int, int], content: bytes = RED_SQUARE) -> bytes:
    """Write a PDF with a page of each size in points, all showing `content`."""
    kids = b" ".join(b"%d 0 R" % number for number in range(4, 4 + len(sizes)))
    leaves = [b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 %d %d]/Contents 3 0 R>>" % size for size in sizes]
    tree = b"<</Type/Pages/Count %d/Kids[%s]>>" % (len(sizes), kids)
    return document(b"<</Type/Catalog/Pages 2 0 R>>", tree, stream(content), *leaves)


def with_red_field(kind: bytes) -> bytes:
    """Write a page that is empty but for an annotation or a form field that looks like a red square."""
    look = stream(RED_SQUARE, b"/Type/XObject/Subtype/Form/BBox[0 0 100 100]")
    field = b"<</Type/Annot/Rect[0 0 100 100]/F 4/AP<</N 5 0 R>>%s>>" % kind
    return document(
        b"<</Type/Catalog/Pages 2 0 R/AcroForm<</Fields[4 0 R]>>>>",
        b"<</Type/Pages/Count 1/Kids[3 0 R]>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]/Annots[4 0 R]>>",
        field,
        look,
    )


def encrypted() -> bytes:
    rights = b"/Encrypt<</Filter/Standard/V 1/R 2/P -4/O<%s>/U<%s>>>/ID[<00><00>]" % (b"11" * 32, b"22" * 32)
    return document(b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Count 0/Kids[]>>", trailer=rights)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "input"


def drawn(path: Path, numbers: Any = (1,), **options: Any) -> list[Image.Image]:
    found = [page for _, page in pages(path, numbers, **{"max_pixels": MAX_PIXELS} | options)]
    assert all(isinstance(page, Image.Image) for page in found), found
    return found  # type: ignore[return-value]


def test_a_page_is_drawn_at_150_dpi_in_rgb(path: Path) -> None:
    """An A4 page is 1 240 × 1 755 pixels, its colours in RGB order, its paper white."""
    path.write_bytes(with_pages(A4))

    (page,) = drawn(path)

    assert (page.mode, page.size) == ("RGB", (1_240, 1_755))
    assert page.getpixel((10, 1_745)) == (255, 0, 0)
    assert page.getpixel((600, 600)) == (255, 255, 255)


def test_pages_come_in_the_order_asked(path: Path) -> None:
    """Numbers count from 1, and each page comes with its own."""
    path.write_bytes(with_pages((72, 72), (144, 144), (216, 216)))

    found = list(pages(path, [3, 1], dpi=72, max_pixels=MAX_PIXELS))

    assert page_count(path) == 3
    assert [(number, getattr(page, "size", None)) for number, page in found] == [(3, (216, 216)), (1, (72, 72))]


def test_long_documents_come_whole(path: Path) -> None:
    """Opening the file anew every so many pages neither loses nor repeats one."""
    path.write_bytes(with_pages(*[(20 + n, 20) for n in range(50)]))

    assert [page.width for page in drawn(path, range(1, 51), dpi=72)] == list(range(20, 70))


def test_a_turned_page_is_upright(path: Path) -> None:
    """A page's own /Rotate is obeyed."""
    path.write_bytes(with_pages((100, 200)).replace(b"/Contents", b"/Rotate 90/Contents"))

    assert drawn(path, dpi=72)[0].size == (200, 100)


@pytest.mark.parametrize(
    "kind", [b"/Subtype/Stamp", b"/Subtype/Widget/FT/Tx/T(name)"], ids=["annotation", "form field"]
)
def test_annotations_and_form_fields_are_visible(path: Path, kind: bytes) -> None:
    """What a reader shows on top of a page is part of the page."""
    path.write_bytes(with_red_field(kind))

    assert drawn(path, dpi=72)[0].getpixel((50, 150)) == (255, 0, 0)


@pytest.mark.parametrize("size", [(14_400, 14_400), (14_400, 3_000), (3_000, 14_400), (100_000, 100_000)])
def test_a_huge_page_is_scaled_down(path: Path, size: tuple[int, int]) -> None:
    """A poster keeps its shape and stays within the longest side."""
    path.write_bytes(with_pages(size))

    (page,) = drawn(path)

    assert LONGEST_SIDE - 2 <= max(page.size) <= LONGEST_SIDE
    assert page.width / page.height == pytest.approx(size[0] / size[1], rel=0.01)


@pytest.mark.parametrize("size", [A4, (1_000, 50), (600, 600)])
def test_a_page_fits_the_pixel_cap(path: Path, size: tuple[int, int]) -> None:
    """No page has more pixels than the service accepts, rounding included."""
    path.write_bytes(with_pages(size))

    (page,) = drawn(path, max_pixels=10_000)

    assert 9_000 <= page.width * page.height <= 10_000


def test_a_strip_that_engines_would_scale_to_nothing_is_refused(path: Path) -> None:
    """A page more than a hundred times as long as wide is its own error, as a picture of that shape is."""
    path.write_bytes(with_pages((7_300, 72), (7_100, 72)))

    found = dict(pages(path, [1, 2], dpi=150, max_pixels=MAX_PIXELS))

    assert {number: type(page) for number, page in found.items()} == {1: ImageTooSmall, 2: Image.Image}


def test_one_bad_page_does_not_lose_the_others(path: Path) -> None:
    """A page that is too thin, missing or out of range is yielded as its error, and the next page still comes."""
    path.write_bytes(with_pages(A4, (5_000, 1), A4).replace(b"Count 3", b"Count 4"))

    found = dict(pages(path, [1, 2, 3, 4, 9], dpi=20, max_pixels=MAX_PIXELS))

    kinds = {number: type(page) for number, page in found.items()}
    image = Image.Image
    assert kinds == {1: image, 2: ImageTooSmall, 3: image, 4: UnreadablePdf, 9: PageOutOfRange}


@pytest.mark.parametrize("read", [page_count, drawn])
@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", EmptyInput),
        (b"no PDF at all", UnreadablePdf),
        (b"%PDF-1.7\nnothing else\nstartxref\n0\n%%EOF", UnreadablePdf),
        (with_pages(), UnreadablePdf),
        (encrypted(), EncryptedPdf),
    ],
    ids=["empty", "not a PDF", "header only", "no pages", "encrypted"],
)
def test_what_cannot_be_opened_is_refused(path: Path, read: Any, content: bytes, error: type[InputError]) -> None:
    """Both doors to a PDF name the same error for the same fault."""
    path.write_bytes(content)

    with pytest.raises(error):
        read(path)


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9, 0.98])
def test_a_truncated_pdf_is_an_error(path: Path, keep: float) -> None:
    """A document that was cut short is refused, not repaired into one with fewer pages."""
    file = io.BytesIO()
    noise = [Image.fromarray(np.random.default_rng(n).integers(0, 256, (99, 99, 3), np.uint8)) for n in range(4)]
    noise[0].save(file, "PDF", save_all=True, append_images=noise[1:])
    path.write_bytes(file.getvalue()[: int(len(file.getvalue()) * keep)])

    with pytest.raises(UnreadablePdf, match="cut short"):
        page_count(path)


def test_a_truncated_update_is_an_error(path: Path) -> None:
    """The end of an earlier revision does not pass for the end of a file whose last revision was cut short."""
    path.write_bytes(with_pages(A4) + b"9 0 obj\n<</Type/Page")

    with pytest.raises(UnreadablePdf, match="cut short"):
        page_count(path)


def test_rubbish_behind_the_end_is_ignored(path: Path) -> None:
    """Bytes that a mail gateway or a web server appended do no harm."""
    path.write_bytes(with_pages(A4) + b"\0" * 2_000 + b"<!-- served in 12 ms -->")

    assert page_count(path) == 1


def test_many_threads_draw_the_same_pages(path: Path) -> None:
    """Threads working on PDFs at once get what one thread alone gets."""
    path.write_bytes(with_pages(*[(100 + 10 * n, 100) for n in range(6)]))
    expected = [page.tobytes() for page in drawn(path, range(1, 7))]

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda _: [page.tobytes() for page in drawn(path, range(1, 7))], range(16)))

    assert all(result == expected for result in results)


def test_an_unfinished_reading_lets_others_work(path: Path) -> None:
    """The lock is held per page: a document left half read does not stop another thread."""
    path.write_bytes(with_pages(A4, A4))
    unfinished = pages(path, [1, 2], max_pixels=MAX_PIXELS)
    next(unfinished)

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(page_count, path).result(timeout=20) == 2
    assert next(unfinished)[0] == 2


def test_a_missing_file_is_not_blamed_on_the_caller(path: Path) -> None:
    """A path that leads nowhere is the service's fault, so it stays a `FileNotFoundError`."""
    with pytest.raises(FileNotFoundError):
        page_count(path)


def test_an_error_is_not_another_files(path: Path) -> None:
    """PDFium keeps the last one, and sets none of its own for a file without pages."""
    path.write_bytes(encrypted())
    with pytest.raises(EncryptedPdf):
        page_count(path)

    path.write_bytes(with_pages())
    with pytest.raises(UnreadablePdf):
        page_count(path)
