"""How Phi-4-multimodal cuts a picture: crops of 448 × 448, what they cost in tokens, and the size at which they fit.

The model's processor lays a grid of crops over a picture, scales the picture into it, and adds one view of the whole.
When the grid has more crops than the processor allows (`dynamic_hd`, 36), it takes the grid of the nearest shape, which
can be far smaller: an A4 page at 200 dpi may fall to 2 × 3. So pictures are scaled here first, to a grid that fits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from PIL import Image

from phi4.errors import ImageTooSmall
from worker.engines.base import Detail

CROP = 448
PATCH = 14
#: Patches along a side of a crop.
SIDE = CROP // PATCH
#: The processor refuses a picture that is thinner than this inside its grid.
THINNEST = 10
#: Twice what is looked at of a picture at most, so that scaling to its crops has enough to choose from.
MOST_PIXELS = 2 * 36 * CROP * CROP
#: Most crops of a picture by detail, the first choice first. A4 at 150 dpi is 3 × 4 = 12; at 250 dpi, 5 × 7 = 35.
DETAIL_CROPS: dict[Detail, tuple[int, ...]] = {"auto": (12, 9, 6, 4, 2, 1), "low": (4,), "high": (36,)}


def grid(width: int, height: int) -> tuple[int, int]:
    """Columns and rows of crops over a picture of this size in pixels."""
    return math.ceil(width / CROP), math.ceil(height / CROP)


def image_tokens(width: int, height: int) -> int:
    """Count the tokens of a picture whose grid the processor keeps as it is.

    One view of the whole (256), a separator (1), a row end for each of its 16 rows, the crops' patches at half
    resolution without the padding, and a row end for each of their rows. 1000 × 700 gives 1777, as with Microsoft's
    processor.
    """
    columns, rows = grid(width, height)
    scale = min(columns * CROP / width, rows * CROP / height)
    across = _half_patches(columns, int(width * scale))
    down = _half_patches(rows, int(height * scale))
    return 256 + 1 + across * down + down + 16


def fit(image: Image.Image, crops: int) -> Image.Image:
    """Scale a picture to its `fitted` size."""
    size = fitted(image.size, crops)
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def fitted(size: tuple[int, int], crops: int) -> tuple[int, int]:
    """Find the largest size, up to a picture's own, at which its grid has at most `crops` crops.

    Raises `ImageTooSmall` when it is so narrow that nothing would be left of its short side.
    """
    width, height = size
    size = max(size for size in _smaller(width, height, crops) if math.prod(grid(*size)) <= crops)
    columns, rows = grid(*size)
    if min(size) * min(columns * CROP / size[0], rows * CROP / size[1]) < THINNEST:
        raise ImageTooSmall(
            f"The image is {width} × {height} pixels; scaled to what the model can look at, its short side vanishes."
        )
    return size


def _smaller(width: int, height: int, crops: int) -> Iterator[tuple[int, int]]:
    """The picture's own size, and every smaller one that fills whole crops on one side."""
    yield width, height
    for side in (width, height):
        for n in range(1, crops + 1):
            scale = min(1.0, n * CROP / side)
            # The small addition keeps what should be a whole number from falling below it.
            yield max(1, int(width * scale + 1e-6)), max(1, int(height * scale + 1e-6))


def _half_patches(crops: int, used: int) -> int:
    """Patches along one side at half resolution, without those that are all padding."""
    padding = (crops * CROP - used) // PATCH
    return math.ceil((crops * CROP // PATCH - padding) / 2)
