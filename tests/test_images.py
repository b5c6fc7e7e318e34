"""Image files become upright RGB pages, or an error that says what is wrong with them."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from phi4.errors import EmptyInput, ImageTooLarge, ImageTooSmall, InputError, TooManyPages, UnreadableImage
from worker.media.images import decode, encode, frame_count, frames, usable_as_is

MAX_PIXELS = 1_000_000
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 255)


def saved(folder: Path, image: Image.Image, format: str, **options: Any) -> Path:
    path = folder / "input"
    image.save(path, format=format, **options)
    return path


def only_frame(path: Path) -> Image.Image:
    (page,) = frames(path, max_pixels=MAX_PIXELS)
    return page


def is_near(page: Image.Image, position: tuple[int, int], colour: tuple[int, ...]) -> bool:
    return bool(np.allclose(np.asarray(page)[position[1], position[0]], colour, atol=3))


def ramp(depth: Any, top: int) -> Any:
    return np.linspace(0, top, 64 * 32).reshape(32, 64).astype(depth)


def photo() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def png_header(width: int, height: int) -> bytes:
    """Make a PNG that is a header and then rubbish: reading its pixels must fail."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"rubbish") + chunk(b"IEND", b"")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_every_accepted_format_gives_one_rgb_page(tmp_path: Path, format: str) -> None:
    """A plain picture of any accepted format is one RGB page of the same size."""
    path = saved(tmp_path, Image.new("RGB", (40, 30), "blue"), format)

    page = only_frame(path)

    assert (page.mode, page.size, frame_count(path)) == ("RGB", (40, 30), 1)
    assert is_near(page, (20, 15), BLUE)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_page_is_turned_upright(tmp_path: Path, format: str, orientation: int) -> None:
    """Whatever turn or mirror the EXIF orientation declares is undone."""
    upright = Image.new("RGB", (64, 32), "white")
    upright.paste((255, 0, 0), (0, 0, 32, 16))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that each orientation asks for, inverted
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {}

    page = only_frame(saved(tmp_path, stored, format, exif=exif, **options))

    assert page.size == (64, 32)
    assert is_near(page, (10, 5), RED)
    assert is_near(page, (50, 25), WHITE)


def test_damaged_exif_costs_neither_the_page_nor_a_word_in_the_log(tmp_path: Path) -> None:
    """A picture with a broken EXIF block is read as if it had none, and nothing is printed about it."""
    path = saved(tmp_path, Image.new("RGB", (40, 30)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    code = (
        "import sys, pathlib, worker.media.images as i; print(*i.frames(pathlib.Path(sys.argv[1]), max_pixels=9_999))"
    )

    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)

    assert "mode=RGB size=40x30" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("image", "format", "options"),
    [
        (Image.new("RGBA", (20, 20), (255, 0, 0, 0)), "PNG", {}),
        (Image.new("LA", (20, 20), (0, 0)), "PNG", {}),
        (Image.new("RGBA", (20, 20), (0, 0, 0, 0)), "WEBP", {"lossless": True}),
        (Image.new("P", (20, 20), 0), "PNG", {"transparency": 0}),
        (Image.new("P", (20, 20), 0), "GIF", {"transparency": 0}),
        (Image.new("P", (20, 20), 0), "PNG", {"transparency": b"\0" * 8}),
        (Image.new("RGB", (20, 20), "black"), "PNG", {"transparency": (0, 0, 0)}),
        (Image.new("L", (20, 20), 0), "PNG", {"transparency": 0}),
    ],
)
def test_transparency_becomes_white(tmp_path: Path, image: Image.Image, format: str, options: dict[str, Any]) -> None:
    """What is fully transparent is paper, in every way a file can say so."""
    assert only_frame(saved(tmp_path, image, format, **options)).getpixel((5, 5)) == WHITE


def test_half_transparent_ink_is_mixed_with_white(tmp_path: Path) -> None:
    """Alpha is composited, not cut off."""
    path = saved(tmp_path, Image.new("RGBA", (20, 20), (0, 0, 0, 128)), "PNG")

    assert only_frame(path).getpixel((5, 5)) == (127, 127, 127)


@pytest.mark.parametrize(
    ("image", "format", "expected"),
    [
        (Image.new("1", (20, 20), 1), "PNG", WHITE),
        (Image.new("L", (20, 20), 100), "PNG", (100, 100, 100)),
        (Image.new("RGB", (20, 20), RED).quantize(4), "PNG", RED),
        (Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "JPEG", RED),
        (Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "TIFF", RED),
        (Image.new("YCbCr", (20, 20), (255, 128, 128)), "TIFF", WHITE),
    ],
)
def test_other_colour_modes_become_rgb(
    tmp_path: Path, image: Image.Image, format: str, expected: tuple[int, int, int]
) -> None:
    """Bilevel, grey, palette, CMYK and YCbCr pictures keep their colours as RGB."""
    page = only_frame(saved(tmp_path, image, format))

    assert page.mode == "RGB"
    assert is_near(page, (5, 5), expected)


@pytest.mark.parametrize(
    ("values", "format"),
    [
        (ramp(np.uint16, 65_535), "PNG"),
        (ramp(np.uint16, 65_535), "TIFF"),
        (ramp(np.int32, 2_000_000), "TIFF"),
        (ramp(np.float32, 1), "TIFF"),
    ],
)
def test_deep_greyscale_is_scaled_not_clipped(tmp_path: Path, values: Any, format: str) -> None:
    """Sixteen-bit, thirty-two-bit and float grey keep their whole range in eight bits."""
    page = np.asarray(only_frame(saved(tmp_path, Image.fromarray(values), format)))[..., 0]

    assert page[0, 0] == 0
    assert page[-1, -1] == 255
    assert 120 <= page[16, 0] <= 136


def test_flat_float_picture_is_a_page(tmp_path: Path) -> None:
    """A picture whose range is empty is scaled without a division by zero."""
    path = saved(tmp_path, Image.fromarray(np.full((20, 20), np.nan, np.float32)), "TIFF")

    assert only_frame(path).size == (20, 20)


def test_every_frame_of_a_tiff_is_a_page(tmp_path: Path) -> None:
    """A multi-page TIFF gives its pages in order, each in its own size and mode."""
    others = [Image.new("L", (50, 20), 7), Image.new("RGB", (30, 60), "blue")]
    path = saved(tmp_path, Image.new("RGB", (40, 30), "red"), "TIFF", save_all=True, append_images=others)

    pages = list(frames(path, max_pixels=MAX_PIXELS))

    assert frame_count(path) == 3
    assert [page.size for page in pages] == [(40, 30), (50, 20), (30, 60)]
    assert [page.getpixel((9, 9)) for page in pages] == [RED, (7, 7, 7), BLUE]
    asked = frames(path, max_pixels=MAX_PIXELS, numbers=[3, 1])
    assert [page.size for page in asked] == [(30, 60), (40, 30)]


@pytest.mark.parametrize(("format", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})])
def test_an_animation_gives_its_first_frame_only(tmp_path: Path, format: str, options: dict[str, Any]) -> None:
    """Animated GIF, WebP and PNG are one page, and cannot be handed on as they are."""
    path = saved(
        tmp_path,
        Image.new("RGB", (40, 30), "red"),
        format,
        save_all=True,
        append_images=[Image.new("RGB", (40, 30), "blue")],
        **options,
    )

    assert frame_count(path) == 1
    assert only_frame(path).getpixel((9, 9)) == RED
    assert not usable_as_is(path)


@pytest.mark.parametrize("read", [frame_count, usable_as_is, only_frame])
@pytest.mark.parametrize(
    ("content", "error"), [(b"", EmptyInput), (b"no image at all", UnreadableImage), (b"\x89PNG\r\n", UnreadableImage)]
)
def test_what_is_no_image_is_refused(tmp_path: Path, read: Any, content: bytes, error: type[InputError]) -> None:
    """Every door to an image file names the same error for the same fault."""
    path = tmp_path / "input"
    path.write_bytes(content)

    with pytest.raises(error):
        read(path)


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.95])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_truncated_image_is_an_error(tmp_path: Path, format: str, keep: float) -> None:
    """A file that was cut short is never taken for a whole page."""
    path = saved(tmp_path, photo(), format)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])

    with pytest.raises(UnreadableImage):
        only_frame(path)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_damaged_image_is_a_page_or_an_input_error(tmp_path: Path, format: str) -> None:
    """Whatever a decoder trips over in damaged bytes, nothing but an `InputError` comes out."""
    path = saved(tmp_path, photo(), format)
    whole, dice = path.read_bytes(), random.Random(0)
    for _ in range(40):
        damaged = bytearray(whole)
        for _ in range(6):
            damaged[dice.randrange(min(200, len(whole)))] = dice.randrange(256)
        path.write_bytes(damaged)
        try:
            pages = list(frames(path, max_pixels=MAX_PIXELS))
        except InputError:
            continue
        assert all(page.mode == "RGB" for page in pages)


@pytest.mark.parametrize("big_tiff", [False, True])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_truncated_tiff_never_gives_fewer_pages(tmp_path: Path, compression: str | None, big_tiff: bool) -> None:
    """Wherever a document of several pages was cut, it is refused or still has all of them."""
    options = {"save_all": True, "append_images": [photo(), photo()], "compression": compression, "big_tiff": big_tiff}
    path = saved(tmp_path, photo(), "TIFF", **options)
    whole = path.read_bytes()
    assert len(list(frames(path, max_pixels=MAX_PIXELS))) == 3
    for length in range(100, len(whole), 97):
        path.write_bytes(whole[:length])
        try:
            pages = len(list(frames(path, max_pixels=MAX_PIXELS)))
        except UnreadableImage:
            pages = 3
        assert pages == 3


def test_a_tiff_of_nothing_but_pages_is_refused_without_looking_into_them(tmp_path: Path) -> None:
    """A page that shares its pixels with the others costs a hundred bytes; Pillow takes hours to count a million."""
    path, count, entries = tmp_path / "input", 200_000, 8
    length = 2 + entries * 12 + 4
    tags = [(256, 8), (257, 8), (258, 8), (259, 1), (262, 1), (273, 8 + count * length), (278, 8), (279, 64)]
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    chain = (struct.pack("<H", entries) + fields + struct.pack("<I", 8 + length * n) for n in range(1, count))
    last = struct.pack("<H", entries) + fields + bytes(4)
    path.write_bytes(b"II*\0\x08\0\0\0" + b"".join(chain) + last + bytes(64))

    for read in (frame_count, only_frame, usable_as_is):
        with pytest.raises(TooManyPages):
            read(path)


def test_pixels_are_counted_before_they_are_decoded(tmp_path: Path) -> None:
    """A bomb is refused by its header; decoding this one would say unreadable instead."""
    path = tmp_path / "input"
    path.write_bytes(png_header(30_000, 30_000))

    with pytest.raises(ImageTooLarge, match="30000 × 30000"):
        only_frame(path)

    path.write_bytes(png_header(100, 100))
    with pytest.raises(UnreadableImage):
        only_frame(path)


def test_pixels_are_counted_on_every_frame_of_a_tiff(tmp_path: Path) -> None:
    """A small first page does not smuggle in a large second one."""
    large = Image.new("L", (1_001, 1_000))
    path = saved(tmp_path, Image.new("L", (40, 30)), "TIFF", save_all=True, append_images=[large])

    with pytest.raises(ImageTooLarge):
        list(frames(path, max_pixels=MAX_PIXELS))


def test_the_cap_is_ours_alone(tmp_path: Path) -> None:
    """An image at the cap passes; the imaging library's own limit neither warns nor refuses."""
    path = saved(tmp_path, Image.new("1", (10_000, 20_000)), "PNG")

    (page,) = frames(path, max_pixels=200_000_000)

    assert page.size == (10_000, 20_000)


@pytest.mark.parametrize("size", [(1, 1), (7, 100), (100, 7)])
def test_a_tiny_image_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    """Nothing can be read from less than eight pixels on a side."""
    with pytest.raises(ImageTooSmall, match=f"{size[0]} × {size[1]}"):
        only_frame(saved(tmp_path, Image.new("RGB", size), "PNG"))


@pytest.mark.parametrize("size", [(9, 901), (901, 9)])
def test_a_strip_that_engines_would_scale_to_nothing_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    """A till receipt passes; what is a hundred times as long as wide does not."""
    with pytest.raises(ImageTooSmall, match=f"{size[0]} × {size[1]}.*cut it into pieces"):
        only_frame(saved(tmp_path, Image.new("RGB", size), "PNG"))

    receipt = only_frame(saved(tmp_path, Image.new("RGB", tuple(min(side, 900) for side in size)), "PNG"))
    assert max(receipt.size) == 900


@pytest.mark.parametrize(
    ("image", "format", "options", "expected"),
    [
        (Image.new("RGB", (20, 20)), "PNG", {}, True),
        (Image.new("L", (20, 20)), "PNG", {}, True),
        (Image.new("RGB", (20, 20)), "JPEG", {}, True),
        (Image.new("L", (20, 20)), "JPEG", {}, True),
        (Image.new("RGB", (20, 20)), "WEBP", {}, True),
        (Image.new("RGB", (20, 20)), "MPO", {"save_all": True, "append_images": [Image.new("RGB", (8, 8))]}, True),
        (Image.new("CMYK", (20, 20)), "JPEG", {}, False),
        (Image.new("RGBA", (20, 20)), "PNG", {}, False),
        (Image.new("RGBA", (20, 20)), "WEBP", {}, False),
        (Image.new("P", (20, 20)), "PNG", {}, False),
        (Image.new("I;16", (20, 20)), "PNG", {}, False),
        (Image.new("RGB", (20, 20)), "PNG", {"transparency": (0, 0, 0)}, False),
        (Image.new("RGB", (20, 20)), "BMP", {}, False),
        (Image.new("RGB", (20, 20)), "TIFF", {}, False),
    ],
)
def test_plain_files_need_no_encoding(
    tmp_path: Path, image: Image.Image, format: str, options: dict[str, Any], expected: bool
) -> None:
    """Only a single upright RGB or grey PNG, JPEG or WebP is handed to the engine as it came."""
    path = saved(tmp_path, image, format, **options)

    assert usable_as_is(path) is expected
    if expected:
        assert decode(path.read_bytes()).tobytes() == only_frame(path).tobytes()


def test_a_turned_photo_is_not_usable_as_is(tmp_path: Path) -> None:
    """An engine does not turn pictures, so one that lies on its side has to be encoded anew."""
    exif = Image.Exif()
    exif[0x0112] = 6

    assert not usable_as_is(saved(tmp_path, Image.new("RGB", (20, 20)), "JPEG", exif=exif))


@pytest.mark.parametrize("page", [photo(), photo().convert("L").convert("RGB"), photo().convert("L")])
def test_encoding_loses_nothing(page: Image.Image) -> None:
    """`decode` gives back exactly the page that `encode` took, as RGB."""
    back = decode(encode(page))

    assert back.mode == "RGB"
    assert back.tobytes() == page.convert("RGB").tobytes()


def test_a_page_without_colour_is_encoded_as_greyscale() -> None:
    """An RGB page whose three channels are equal costs no more than one channel."""
    assert Image.open(io.BytesIO(encode(photo().convert("L").convert("RGB")))).mode == "L"
    assert Image.open(io.BytesIO(encode(photo()))).mode == "RGB"


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_page_that_is_larger_than_what_is_looked_at_is_scaled_down(format: str, mode: str) -> None:
    """To about as many pixels, in its shape; what is no larger stays as it is."""
    file = io.BytesIO()
    page = Image.linear_gradient("L").resize((1_600, 900)).convert(mode)
    page.save(file, format)

    small, whole = decode(file.getvalue(), most_pixels=360_000), decode(file.getvalue(), most_pixels=1_600 * 900)

    assert (small.mode, small.size, whole.size) == ("RGB", (800, 450), (1_600, 900))
    assert np.abs(np.asarray(small).astype(int) - np.asarray(whole.resize((800, 450))).astype(int)).mean() < 2


@pytest.mark.parametrize(("data", "error"), [(b"", EmptyInput), (b"rubbish", UnreadableImage)])
def test_decode_names_what_is_wrong(data: bytes, error: type[InputError]) -> None:
    """Stored bytes that are no page are an input error too."""
    with pytest.raises(error):
        decode(data)


def test_a_missing_file_is_not_blamed_on_the_caller(tmp_path: Path) -> None:
    """A path that leads nowhere is the service's fault, so it stays a `FileNotFoundError`."""
    with pytest.raises(FileNotFoundError):
        frame_count(tmp_path / "nothing")
