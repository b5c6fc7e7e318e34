"""Cuts pictures into the crops that Phi-4-multimodal looks at, as bytes: a quarter of what vLLM would carry as floats.

It stands in the checkpoint's own processor in place of its image part. Turning bytes into numbers, and the view of the
whole, are left to the GPU (`fast_pictures`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from worker.engines.crops import CROP, PATCH, SIDE, THINNEST


@dataclass(frozen=True, slots=True)
class _Cut:
    """One picture: its crops (n × 3 × 448 × 448, bytes) and what of them is picture (n × 32 × 32)."""

    crops: Tensor
    mask: Tensor
    size: tuple[int, int]  #: height and width of the grid in pixels

    @property
    def tokens(self) -> int:
        """How many tokens the picture costs: 2 × 2 patches each, the view of the whole, and the ends of rows."""
        halved = self.mask[:, ::2, ::2]
        rows = self.size[0] // CROP
        in_column = halved.view(rows, -1, *halved.shape[1:])[:, 0, :, 0]
        whole = (SIDE // 2) ** 2
        return int(whole + 1 + halved.sum() + in_column.sum() + SIDE // 2)


class FastCrops:
    """The checkpoint's image processor with another call; whatever else vLLM asks of it is its own."""

    def __init__(self, theirs: Any, find_grid: Callable[[int, int], tuple[int, int]]) -> None:
        self._theirs = theirs
        self._grid = find_grid  #: columns and rows of crops for a width and a height

    def __getattr__(self, name: str) -> Any:
        return getattr(self._theirs, name)

    def __call__(self, images: Sequence[Image.Image], **_: Any) -> dict[str, Any]:
        """Cut the pictures of one prompt; those of fewer crops are filled up.

        `input_image_embeds`: pictures × crops × 3 × 448 × 448, bytes, without the view of the whole;
        `image_attention_mask`: pictures × (1 + crops) × 32 × 32, 1 where there is picture, the whole first;
        `image_sizes`: pictures × 2, height and width of the grid; `num_img_tokens`: of each. Raises `ValueError`.
        """
        cut = [self._cut(image.convert("RGB")) for image in images]
        most = max(len(one.crops) for one in cut)
        whole = torch.ones(1, SIDE, SIDE)
        return {
            "input_image_embeds": torch.stack([_filled(one.crops, most) for one in cut]),
            "image_attention_mask": torch.stack([torch.cat([whole, _filled(one.mask, most)]) for one in cut]),
            "image_sizes": torch.tensor([one.size for one in cut]),
            "num_img_tokens": [one.tokens for one in cut],
        }

    def _cut(self, image: Image.Image) -> _Cut:
        columns, rows = self._grid(image.width, image.height)
        width, height = columns * CROP, rows * CROP
        scale = min(width / image.width, height / image.height)
        used = int(image.width * scale), int(image.height * scale)
        if min(used) < THINNEST:
            raise ValueError(f"a picture of {image.width} × {image.height} pixels is too thin to look at")
        canvas = Image.new("RGB", (width, height), "white")
        canvas.paste(image if image.size == used else image.resize(used, Image.Resampling.BILINEAR))
        mask = torch.zeros(rows * SIDE, columns * SIDE)
        mask[: rows * SIDE - (height - used[1]) // PATCH, : columns * SIDE - (width - used[0]) // PATCH] = 1.0
        pixels = np.asarray(canvas).reshape(rows, CROP, columns, CROP, 3).transpose(0, 2, 4, 1, 3)
        return _Cut(
            crops=torch.from_numpy(np.ascontiguousarray(pixels).reshape(-1, 3, CROP, CROP)),
            mask=mask.view(rows, SIDE, columns, SIDE).transpose(1, 2).reshape(-1, SIDE, SIDE),
            size=(height, width),
        )


def _filled(crops: Tensor, count: int) -> Tensor:
    return pad(crops, (0, 0) * (crops.dim() - 1) + (0, count - len(crops)))
