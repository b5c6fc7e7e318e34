"""Phi-4's pictures from crops to tokens in one gather, on vLLM's own weights.

vLLM puts the tokens of each picture together in a loop of small kernels and asks the GPU for their number in between,
which waits for the image tower. Here the numbers are asked for before the tower starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CROP = 448  #: pixels


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
    """Embed pictures: for each (crops, 3, 448, 448), its padded size, and its mask (crops, 32, 32).

    Gives (tokens, hidden size) for each.
    """
    layouts = _layouts(sizes, masks)
    weights = encoder.img_projection[0].weight
    crops = torch.cat([picture[: layout.crops] for picture, layout in zip(pixels, layouts, strict=True)])
    mask = torch.cat([mask[: layout.crops] for mask, layout in zip(masks, layouts, strict=True)])
    features = encoder.get_img_features(crops.to(weights.dtype), mask.bool())

    side, width = encoder.base_feat_height_target, features.shape[-1]
    number = features.shape[0] * features.shape[1]
    table = torch.cat([features.reshape(number, width), encoder.sub_GN.view(1, width), encoder.glb_GN.view(1, width)])
    firsts = np.cumsum([0, *(layout.crops for layout in layouts)]) * side * side
    orders = [
        layout.order(int(first), side, number, number + 1) for layout, first in zip(layouts, firsts, strict=False)
    ]
    order = torch.from_numpy(np.concatenate(orders)).to(features.device, non_blocking=True)
    tokens: Tensor = encoder.img_projection(table[order])
    return list(tokens.split([len(order) for order in orders]))


def _layouts(sizes: Tensor, masks: Sequence[Tensor]) -> list[Layout]:
    # In one copy: each waits for what the GPU has still to do.
    told = torch.cat([sizes.reshape(-1).long(), *(mask.reshape(-1).bool().long() for mask in masks)]).cpu().numpy()
    layouts, at = [], 2 * len(masks)
    for number, mask in enumerate(masks):
        seen = told[at : at + mask.numel()].reshape(mask.shape).astype(np.bool_)
        layouts.append(Layout.of(told[2 * number : 2 * number + 2].tolist(), seen))
        at += mask.numel()
    return layouts
