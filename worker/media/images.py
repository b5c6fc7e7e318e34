"""Turns an untrusted image file into upright RGB pages, and a page into bytes and back."""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageSequence

from phi4.errors import EmptyInput, ImageTooLarge, ImageTooSmall, InputError, UnreadableImage

#: Below this many pixels on a side nothing can be read, and models refuse it.
MIN_SIDE = 8
#: Scaled to what an engine can look at, nothing is left of the short side of a longer strip.
MOST_ASPECT = 100

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

# Pillow's own limit is one number for the whole process and warns before it refuses; ours is checked on every frame.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns of damaged metadata that we can do without; the operator's log is no place for a caller's broken EXIF.
warnings.filterwarnings("ignore", module=r"PIL\.")


def frames(path: Path, *, max_pixels: int) -> Iterator[Image.Image]:
    """Yield every page, decoded in full, upright, RGB, transparency on white; animations give their first frame.

    Raises `EmptyInput`, `UnreadableImage`, `ImageTooLarge` (before decoding) or `ImageTooSmall`.
    """
    with path.open("rb") as file, _unreadable_when_anything_fails():
        image = _open(file)
        pages = ImageSequence.Iterator(image) if image.format == "TIFF" else iter([image])
        for page in pages:
            _check_size(page, max_pixels)
            yield _to_page(page)


def frame_count(path: Path) -> int:
    """Count the pages `frames` would yield. Raises `EmptyInput` or `UnreadableImage`."""
    with path.open("rb") as file, _unreadable_when_anything_fails():
        image = _open(file)
        return int(getattr(image, "n_frames", 1)) if image.format == "TIFF" else 1


def usable_as_is(path: Path) -> bool:
    """Tell from the header whether `decode` gives this file's only page without loss, so that it need not be encoded.

    Raises `EmptyInput` or `UnreadableImage`.
    """
    with path.open("rb") as file, _unreadable_when_anything_fails():
        image = _open(file)
        is_single = image.format == "MPO" or getattr(image, "n_frames", 1) == 1
        is_plain = image.mode in ("RGB", "L") and not image.has_transparency_data and _orientation(image) == 1
        return image.format in _DECODABLE_BY_ENGINES and is_single and is_plain


def encode(page: Image.Image) -> bytes:
    """Pack a page without loss; a page without colour is packed as greyscale."""
    # Measured on A4 at 150 dpi: as small as PNG level 1 and two to three times faster both ways.
    packed = io.BytesIO()
    _without_needless_colour(page).save(packed, format="TIFF", compression="tiff_lzw")
    return packed.getvalue()


def decode(data: bytes) -> Image.Image:
    """Unpack what `encode` packed, or a file that is `usable_as_is`, into an RGB page. Raises `UnreadableImage`."""
    with _unreadable_when_anything_fails():
        return _open(io.BytesIO(data)).convert("RGB")


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
        _check_directories(file)
    return image


def _check_directories(file: BinaryIO) -> None:
    """Follow a TIFF's chain of pages to its end: where it is cut short, Pillow would quietly stop counting."""
    opened_at = file.seek(0, os.SEEK_CUR)
    file.seek(0)
    header = file.read(16)
    order = "<" if header.startswith(b"II") else ">"
    is_big = b"+" in header[2:4]
    (size, entry_bytes, offset) = ("Q", 20, "Q") if is_big else ("H", 12, "L")
    (at,) = struct.unpack_from(order + offset, header, 8 if is_big else 4)
    seen: set[int] = set()
    while at and at not in seen:
        seen.add(at)
        file.seek(at)
        (entries,) = struct.unpack(order + size, file.read(struct.calcsize(order + size)))
        file.seek(entries * entry_bytes, os.SEEK_CUR)
        (at,) = struct.unpack(order + offset, file.read(struct.calcsize(order + offset)))
    file.seek(opened_at)


def is_thin(width: float, height: float) -> bool:
    """Tell whether a page is so long and narrow that its short side vanishes when it is looked at whole."""
    return max(width, height) > MOST_ASPECT * min(width, height)


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
