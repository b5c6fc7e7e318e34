"""The checkpoint's own code: an image as square crops on white, with a view of the whole before them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import interpolate

CROP = 448
PATCH = 14
#: Patches along a side of a crop.
SIDE = CROP // PATCH
MIN_SIDE = 10

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Crops:
    """One image: crops (n × 3 × 448 × 448, the whole first), their patches that are image (n × 32 × 32), its size."""

    pixels: Floats
    mask: Floats
    height: int
    width: int
    tokens: int


def closest_ratio(aspect: float, grids: Iterable[tuple[int, int]], area: int, crop: int = CROP) -> tuple[int, int]:
    """The grid (columns, rows) whose aspect is nearest; of equal ones the later, when the image fills half of it."""
    best, distance = (1, 1), math.inf
    for columns, rows in grids:
        off = abs(aspect - columns / rows)
        if off < distance or (off == distance and area > 0.5 * crop * crop * columns * rows):
            best, distance = (columns, rows), off
    return best


def crop(image: Image.Image, most: int) -> Crops:
    """Cut an image into at most `most` crops; ValueError when one side would be nearly nothing."""
    image = image.convert("RGB")
    columns, rows = _grid(*image.size, most)
    width, height = columns * CROP, rows * CROP
    fitted = _fit(image.size, width, height)
    if min(fitted) < MIN_SIDE:
        raise ValueError(f"the image's aspect ratio is too extreme: {image.width}x{image.height}")
    canvas = Image.new("RGB", (width, height), "white")
    canvas.paste(image.resize(fitted, Image.Resampling.BILINEAR))
    # Microsoft's scales numbers, not the image, without smoothing.
    whole = interpolate(torch.from_numpy(_normal(canvas))[None], size=(CROP, CROP), mode="bicubic").numpy()
    mask = np.ones((rows * SIDE, columns * SIDE), np.float32)
    mask[rows * SIDE - (height - fitted[1]) // PATCH :] = 0
    mask[:, columns * SIDE - (width - fitted[0]) // PATCH :] = 0
    return Crops(
        pixels=np.concatenate([whole, _squares(_normal(canvas), CROP)]),
        mask=np.concatenate([np.ones((1, SIDE, SIDE), np.float32), _squares(mask[None], SIDE)[:, 0]]),
        height=height,
        width=width,
        tokens=_tokens(mask),
    )


def stack(arrays: list[Floats], padding: float) -> Floats:
    """Arrays of one image each as one array; those with fewer crops are filled up."""
    most = max(len(array) for array in arrays)
    fill = [np.full((most - len(array), *array.shape[1:]), padding, np.float32) for array in arrays]
    return np.stack([np.concatenate(pair) for pair in zip(arrays, fill, strict=True)])


def _grid(width: int, height: int, most: int) -> tuple[int, int]:
    columns, rows = math.ceil(width / CROP), math.ceil(height / CROP)
    if columns * rows <= most:
        return columns, rows
    grids = {(c, r) for c in range(1, most + 1) for r in range(1, most + 1) if c * r <= most}
    return closest_ratio(width / height, sorted(grids, key=math.prod), width * height)


def _fit(size: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    """The largest size of the same aspect."""
    wider, higher = width / size[0], height / size[1]
    return (width, int(size[1] * wider)) if wider < higher else (int(size[0] * higher), height)


def _normal(image: Image.Image) -> Floats:
    """3 × height × width, from -1 to 1."""
    return np.asarray(image, np.float32).transpose(2, 0, 1) / 127.5 - 1.0


def _squares(array: Floats, side: int) -> Floats:
    """Channels × height × width as squares × channels × side × side, row by row."""
    channels, height, width = array.shape
    parted = array.reshape(channels, height // side, side, width // side, side)
    return parted.transpose(1, 3, 0, 2, 4).reshape(-1, channels, side, side)


def _tokens(mask: Floats) -> int:
    """Tokens: a square of patches each, 2 × 2 of them in one, a separator after each row and between the two views."""
    half = SIDE // 2
    pooled = mask[::2, ::2]
    return half * (half + 1) + 1 + int(pooled.sum()) + int(pooled[:, 0].sum())
