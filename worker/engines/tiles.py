"""Cuts pictures into the crops that Phi-4-multimodal looks at, as tensors of transformers' own class for it.

transformers has an image processor for this, which needs torchvision; this one needs Pillow, and gives the same but for
the rounding of the first scaling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate, pad

from worker.engines.crops import CROP, PATCH, SIDE, grid


def tiles(images: Sequence[Image.Image]) -> dict[str, Any]:
    """Give the model's arguments for upright RGB pictures, each at most 36 crops large (see `crops.fit`).

    `image_pixel_values`: pictures × crops × 3 × 448 × 448, from -1 to 1, the view of the whole first, those of fewer
    crops filled up. `image_attention_mask`: pictures × crops × 32 × 32, which patches are picture and not padding.
    `image_sizes`: pictures × 2, height and width of the grid in pixels.
    """
    cut = [_cut(image) for image in images]
    most = max(len(pixels) for pixels, _, _ in cut)
    return {
        "image_pixel_values": torch.stack([_filled(pixels, most, 0.0) for pixels, _, _ in cut]),
        "image_attention_mask": torch.stack([_filled(mask, most, 1.0) for _, mask, _ in cut]),
        "image_sizes": torch.tensor([size for _, _, size in cut]),
    }


def _cut(image: Image.Image) -> tuple[Any, Any, tuple[int, int]]:
    """One picture on a white canvas of whole crops: the crops, their masks, and the canvas's height and width."""
    columns, rows = grid(*image.size)
    width, height = columns * CROP, rows * CROP
    scale = min(width / image.width, height / image.height)
    used = int(image.width * scale), int(image.height * scale)
    canvas = Image.new("RGB", (width, height), "white")
    canvas.paste(image.resize(used, Image.Resampling.BILINEAR))
    pixels = torch.from_numpy(np.asarray(canvas, np.float32)).permute(2, 0, 1) / 127.5 - 1.0
    whole = interpolate(pixels[None], size=(CROP, CROP), mode="bicubic")
    mask = torch.zeros(1, rows * SIDE, columns * SIDE)
    mask[:, : rows * SIDE - (height - used[1]) // PATCH, : columns * SIDE - (width - used[0]) // PATCH] = 1.0
    return (
        torch.cat([whole, _squares(pixels, CROP)]),
        torch.cat([torch.ones(1, SIDE, SIDE), _squares(mask, SIDE)[:, 0]]),
        (height, width),
    )


def _squares(plane: Any, side: int) -> Any:
    """Channels × height × width as squares × channels × side × side, row by row."""
    return plane.unfold(1, side, side).unfold(2, side, side).permute(1, 2, 0, 3, 4).flatten(0, 1)


def _filled(crops: Any, count: int, value: float) -> Any:
    return pad(crops, (0, 0) * (crops.dim() - 1) + (0, count - len(crops)), value=value)
