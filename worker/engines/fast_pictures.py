"""Phi-4's pictures from crops to tokens in one gather, on vLLM's own weights.

vLLM finds the places of patches crop by crop and puts the tokens of each picture together in a loop of small kernels;
in between it asks the GPU for numbers, each of which waits for all that the GPU has still to do. Here sizes and masks
stay with the processor, and nothing waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from worker.engines import fast_tower
from worker.engines.crops import CROP, SIDE
from worker.engines.fast_tower import to_device


@dataclass(frozen=True, slots=True)
class Layout:
    """How the crops of one picture lie: `rows` × `columns` of them, and the part of their tokens that is picture."""

    rows: int
    columns: int
    height: int  #: tokens
    width: int

    @property
    def crops(self) -> int:
        """How many crops there are; the first is the whole picture, scaled down."""
        return 1 + self.rows * self.columns

    @classmethod
    def of(cls, size: Sequence[int], mask: NDArray[np.bool_]) -> Layout:
        """Read it off a picture's padded size in pixels and its mask (crops, 32, 32), which is 0 in the padding."""
        rows, columns = size[0] // CROP, size[1] // CROP
        halved = mask[1 : 1 + rows * columns, ::2, ::2].reshape(rows, columns, *(-(-n // 2) for n in mask.shape[1:]))
        return cls(rows, columns, int(halved[:, 0, :, 0].sum()), int(halved[0, :, 0, :].sum()))

    def order(self, first: int, side: int, row_end: int, middle: int) -> NDArray[np.int64]:
        """Say which token stands where; `first` is the number of this picture's first one.

        A crop has `side` × `side` tokens. `row_end` is the number of the token after each row, `middle` of the one
        between the crops and the whole picture, which comes last.
        """
        y, x = np.mgrid[: self.height, : self.width]
        crop = 1 + (y // side) * self.columns + x // side
        parts = first + (crop * side + y % side) * side + x % side
        whole = first + np.arange(side * side).reshape(side, side)
        return np.concatenate([_rows(parts, row_end), [middle], _rows(whole, row_end)])


def _rows(tokens: NDArray[np.int64], row_end: int) -> NDArray[np.int64]:
    return np.pad(tokens, ((0, 0), (0, 1)), constant_values=row_end).ravel()


def embed(encoder: Any, pixels: Sequence[Tensor], sizes: Tensor, masks: Sequence[Tensor]) -> list[Tensor]:
    """Embed pictures: for each its crops (n, 3, 448, 448) as bytes, its padded size, and its mask (1 + n, 32, 32).

    `pixels` lie on the GPU, sizes and masks need not. Gives (tokens, hidden size) for each.
    """
    weights = encoder.img_projection[0].weight
    laid = layouts(sizes, masks)
    looked_at = [numbers(crops, layout, weights.dtype) for crops, layout in zip(pixels, laid, strict=True)]
    seen = torch.cat([mask.cpu()[: layout.crops].bool() for mask, layout in zip(masks, laid, strict=True)])
    features = _features(encoder.img_processor, torch.cat(looked_at), seen)

    side, width = encoder.base_feat_height_target, features.shape[-1]
    number = features.shape[0] * features.shape[1]
    table = torch.cat([features.reshape(number, width), encoder.sub_GN.view(1, width), encoder.glb_GN.view(1, width)])
    firsts = np.cumsum([0, *(layout.crops for layout in laid)]) * side * side
    orders = [layout.order(int(first), side, number, number + 1) for layout, first in zip(laid, firsts, strict=False)]
    order = to_device(features.device, torch.from_numpy(np.concatenate(orders)))
    tokens: Tensor = encoder.img_projection(table[order])
    return list(tokens.split([len(order) for order in orders]))


def _features(tower: Any, crops: Tensor, masks: Tensor) -> Tensor:
    """Look at crops (n, 3, 448, 448) with masks (n, 32, 32), which lie on the CPU; gives (n, 256, width)."""
    places = to_device(crops.device, _places(masks))
    patches = tower.embeddings.patch_embedding(crops).flatten(2).transpose(1, 2)
    return fast_tower.look(tower, patches + tower.embeddings.position_embedding(places), masks.numpy())


def _places(mask: Tensor) -> Tensor:
    """Give each patch of crops (n, 32, 32) its place, as the tower learned them; padding lies where the first does."""
    heights, widths = mask[:, :, 0].sum(1).int().tolist(), mask[:, 0].sum(1).int().tolist()
    return torch.stack([_places_in(height, width) for height, width in zip(heights, widths, strict=True)])


@cache
def _places_in(height: int, width: int) -> Tensor:
    """The same for one crop with so many patches of picture; a smaller picture is spread over all places."""
    boundaries = torch.arange(1 / SIDE, 1.0, 1 / SIDE)
    # In single precision, as vLLM has it.
    down, across = (
        torch.bucketize(torch.arange(0, 1 - 1e-6, 1 / torch.tensor(max(1, count))), boundaries, right=True)
        for count in (height, width)
    )
    places = torch.zeros(SIDE, SIDE, dtype=torch.long)
    places[:height, :width] = (down[:, None] * SIDE + across)[:height, :width]
    return places.flatten()


def layouts(sizes: Tensor, masks: Sequence[Tensor]) -> list[Layout]:
    """Read how the crops of pictures lie off their padded sizes (pictures, 2) and masks (1 + crops, 32, 32)."""
    pairs = zip(sizes.view(-1, 2).tolist(), masks, strict=True)
    return [Layout.of(size, mask.cpu().bool().numpy()) for size, mask in pairs]


def numbers(crops: Tensor, layout: Layout, dtype: torch.dtype) -> Tensor:
    """Turn crops of bytes into numbers from -1 to 1, the view of the whole first."""
    parts = crops[: layout.crops - 1].float() / 127.5 - 1.0
    canvas = parts.view(layout.rows, layout.columns, 3, CROP, CROP).permute(2, 0, 3, 1, 4)
    canvas = canvas.reshape(1, 3, layout.rows * CROP, layout.columns * CROP)
    whole = interpolate(canvas, size=(CROP, CROP), mode="bicubic")
    return torch.cat([whole, parts]).to(dtype)
