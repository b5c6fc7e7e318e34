"""Turns an untrusted image file into upright RGB pages, and a page into bytes and back."""

from __future__ import annotations

import io
import mmap
import struct
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageSequence

from phi4.errors import EmptyInput, ImageTooLarge, ImageTooSmall, InputError, TooManyPages, UnreadableImage
from worker.media.sizes import MIN_SIDE, MOST_ASPECT, is_thin

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
_DECODABLE_BY_ENGINES = {"PNG", "JPEG", "MPO", "WEBP"}  # MPO: a phone's JPEG with a second picture behind the first
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TIFF_BITS_PER_SAMPLE = 258
_MOST_DIRECTORIES = 10_000

_LANCZOS = Image.Resampling.LANCZOS
#: Pictures that are to be scaled down are unpacked two at a time: one of 100 megapixels takes 300 MB until it is.
_large = threading.BoundedSemaphore(2)

# Pillow's own limit is one number for the whole process and warns before it refuses; ours is checked on every frame.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns of damaged metadata that we can do without; the operator's log is no place for a caller's broken EXIF.
warnings.filterwarnings("ignore", module=r"PIL\.")


def frames(path: Path, *, max_pixels: int, numbers: Iterable[int] | None = None) -> Iterator[Image.Image]:
    """Yield pages, decoded in full, upright, RGB, transparency on white; animations give their first frame.

    All of them, or those of these `numbers`, from 1 on and in this order. Raises `EmptyInput`, `UnreadableImage`,
    `ImageTooLarge` (before decoding) or `ImageTooSmall`.
    """
    with path.open("rb") as file, _unreadable_when_anything_fails():
        image = _open(file)
        pages = ImageSequence.Iterator(image) if image.format == "TIFF" else [image]
        for page in pages if numbers is None else (pages[number - 1] for number in numbers):
            _check_size(page, max_pixels)
            yield _to_page(page)


def frame_count(path: Path) -> int:
    """Count the pages `frames` would yield. Raises `EmptyInput` or `UnreadableImage`."""
    with path.open("rb") as file, _unreadable_when_anything_fails():
        # Pillow would look into every page to count them, which takes hours for a file made of nothing else.
        return _directories(file) if _open(file).format == "TIFF" else 1


def usable_as_is(path: Path) -> bool:
    """Tell from the header whether `decode` gives this file's only page without loss, so that it need not be encoded.

    Raises `EmptyInput` or `UnreadableImage`.
    """
    with path.open("rb") as file, _unreadable_when_anything_fails():
        image = _open(file)
        if image.format not in _DECODABLE_BY_ENGINES:
            return False
        is_single = image.format == "MPO" or getattr(image, "n_frames", 1) == 1
        return is_single and image.mode in ("RGB", "L") and not image.has_transparency_data and _orientation(image) == 1


def encode(page: Image.Image) -> bytes:
    """Pack a page without loss; a page without colour is packed as greyscale."""
    # Measured on A4 at 150 dpi: as small as PNG level 1 and two to three times faster both ways.
    packed = io.BytesIO()
    _without_needless_colour(page).save(packed, format="TIFF", compression="tiff_lzw")
    return packed.getvalue()


def decode(data: bytes, *, most_pixels: int | None = None) -> Image.Image:
    """Unpack what `encode` packed, or a file that is `usable_as_is`, into an RGB page, scaled down to `most_pixels`.

    Raises `UnreadableImage`.
    """
    with _unreadable_when_anything_fails():
        image = _open(io.BytesIO(data))
        if most_pixels is None or image.width * image.height <= most_pixels:
            return image.convert("RGB")
        scale = (most_pixels / (image.width * image.height)) ** 0.5
        with _large:
            image.thumbnail((max(1, int(image.width * scale)), max(1, int(image.height * scale))), _LANCZOS)
        return image.convert("RGB")


@contextmanager
def _unreadable_when_anything_fails() -> Iterator[None]:
    # Decoders fed with hostile bytes raise whatever their parser trips over: OSError, SyntaxError, struct.error, …
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise UnreadableImage(reason=str(error)) from error


def _open(file: BinaryIO) -> Image.Image:
    if not file.read(1):
        raise EmptyInput
    file.seek(0)
    image = Image.open(file, formats=_FORMATS)
    if image.format == "TIFF":
        _directories(file)
    return image


def _directories(file: BinaryIO) -> int:
    """Count a TIFF's pages along their chain to its end: where it is cut short, Pillow would quietly stop counting.

    Raises `TooManyPages`: Pillow needs ever longer for each page of a file that consists of nothing else.
    """
    with _content(file) as content:
        order = "<" if content[:2] == b"II" else ">"
        is_big = b"+" in content[2:4]
        (size, entry_bytes, offset) = ("Q", 20, "Q") if is_big else ("H", 12, "L")
        (at,) = struct.unpack_from(order + offset, content, 8 if is_big else 4)
        seen: set[int] = set()
        while at and at not in seen:
            seen.add(at)
            if len(seen) > _MOST_DIRECTORIES:
                raise TooManyPages(f"The TIFF has more than {_MOST_DIRECTORIES} pages.")
            (entries,) = struct.unpack_from(order + size, content, at)
            (at,) = struct.unpack_from(
                order + offset, content, at + struct.calcsize(order + size) + entries * entry_bytes
            )
    return len(seen)


def _content(file: BinaryIO) -> memoryview | mmap.mmap:
    return file.getbuffer() if isinstance(file, io.BytesIO) else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if min(width, height) < MIN_SIDE:
        raise ImageTooSmall(f"The image is {width} × {height} pixels; each side needs at least {MIN_SIDE}.")
    if is_thin(width, height):
        raise ImageTooSmall(
            f"The image is {width} × {height} pixels; what is more than {MOST_ASPECT} times as long as wide cannot "
            "be read: cut it into pieces."
        )
    if width * height > max_pixels:
        raise ImageTooLarge(f"The image is {width} × {height} pixels; at most {max_pixels} are accepted.")


def _to_page(image: Image.Image) -> Image.Image:
    image.load()
    turn = _UPRIGHT.get(_orientation(image))
    page = _to_rgb(image)
    return page.transpose(turn) if turn is not None else page


def _orientation(image: Image.Image) -> int:
    # A damaged EXIF block is common and says nothing about the picture, so it must not cost the page.
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data and not image.mode.startswith("I"):
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    if image.mode.startswith(("I", "F")):
        image = _to_eight_bits(image)
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale deep greyscale: 16-bit by its declared depth, 32-bit and float, which have no white, by their range."""
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        return Image.fromarray((values >> (_declared_bits(image) - 8)).astype(np.uint8))
    numbers = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = float(numbers.min()), float(numbers.max())
    return Image.fromarray(((numbers - low) * (255.0 / ((high - low) or 1.0))).round().astype(np.uint8))


def _declared_bits(image: Image.Image) -> int:
    tags = getattr(image, "tag_v2", {})
    return min(16, max(8, int(tags.get(_TIFF_BITS_PER_SAMPLE, (16,))[0])))


def _without_needless_colour(page: Image.Image) -> Image.Image:
    if page.mode != "RGB":
        return page
    red, green, blue = (band.tobytes() for band in page.split())
    return page.getchannel(0) if red == green == blue else page
