"""The kernel of `add_norm`; imported on a GPU only, where Triton is."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor, nn


@triton.jit  # type: ignore[untyped-decorator]
def _add_norm(
    hidden: tl.tensor,
    more: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    total: tl.tensor,
    normed: tl.tensor,
    width: tl.tensor,
    epsilon: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    place = tl.program_id(0).to(tl.int64) * width + columns
    first = tl.load(hidden + place, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(more + place, mask=inside, other=0.0).to(tl.float32)
    rounded = (first + second).to(total.dtype.element_ty)
    tl.store(total + place, rounded, mask=inside)
    # Of the sum as it is stored, so that the result is that of two steps.
    row = rounded.to(tl.float32)
    centred = tl.where(inside, row - tl.sum(row, 0) / width, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 0) / width + epsilon)
    by = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    onto = tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed + place, (centred * scale * by + onto).to(normed.dtype.element_ty), mask=inside)


def add_norm_on_gpu(hidden: Tensor, more: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """As `add_norm`."""
    hidden, more = hidden.contiguous(), more.contiguous()
    total, normed = torch.empty_like(hidden), torch.empty_like(hidden)
    rows, width = hidden.shape
    block = triton.next_power_of_2(width)
    _add_norm[(rows,)](hidden, more, norm.weight, norm.bias, total, normed, width, norm.eps, BLOCK=block, num_warps=4)
    return total, normed
