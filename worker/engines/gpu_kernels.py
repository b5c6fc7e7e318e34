"""Our kernels, in Triton, each for a few steps of torch; imported on a GPU only, where Triton is.

torch.compile makes one kernel of such steps too, but on an H200 the one it makes of `add_norm` takes 2.5 times as long
(bench/NOTES.md). All count in single precision, and round once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_WARPS = 2
#: Elements of a row that one program computes where rows need not be whole.
_PIECE = 1024


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
    share: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    place = tl.program_id(0).to(tl.int64) * width + columns
    first = tl.load(hidden + place, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(more + place, mask=inside, other=0.0).to(tl.float32)
    rounded = (first + share * second).to(total.dtype.element_ty)
    tl.store(total + place, rounded, mask=inside)
    # Of the sum as it is stored, so that the result is that of two steps.
    row = rounded.to(tl.float32)
    centred = tl.where(inside, row - tl.sum(row, 0) / width, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 0) / width + epsilon)
    by = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    onto = tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed + place, (centred * scale * by + onto).to(normed.dtype.element_ty), mask=inside)


def add_norm(
    hidden: Tensor, more: Tensor, weight: Tensor, bias: Tensor, epsilon: float, share: float
) -> tuple[Tensor, Tensor]:
    """As `worker.engines.add_norm`."""
    hidden, more = hidden.contiguous(), more.contiguous()
    total, normed = torch.empty_like(hidden), torch.empty_like(hidden)
    rows, width = hidden.shape
    block = triton.next_power_of_2(width)
    _add_norm[(rows,)](hidden, more, weight, bias, total, normed, width, epsilon, share, BLOCK=block, num_warps=_WARPS)
    return total, normed


@triton.jit  # type: ignore[untyped-decorator]
def _gated(widened: tl.tensor, bias: tl.tensor, gated: tl.tensor, width: tl.tensor, PIECE: tl.constexpr) -> None:
    columns = tl.program_id(1) * PIECE + tl.arange(0, PIECE)
    inside = columns < width
    row = tl.program_id(0).to(tl.int64)
    half = tl.load(widened + row * 2 * width + columns, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(widened + row * 2 * width + width + columns, mask=inside, other=0.0).to(tl.float32)
    half += tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    gate += tl.load(bias + width + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(gated + row * width + columns, (half * gate * tl.sigmoid(gate)).to(gated.dtype.element_ty), mask=inside)


def gated(widened: Tensor, bias: Tensor) -> Tensor:
    """Of (rows, 2 × width) plus `bias`, the first half times SiLU of the second."""
    rows, width = widened.shape[0], widened.shape[1] // 2
    made = widened.new_empty(rows, width)
    _gated[(rows, triton.cdiv(width, _PIECE))](widened.contiguous(), bias, made, width, PIECE=_PIECE, num_warps=_WARPS)
    return made


@triton.jit  # type: ignore[untyped-decorator]
def _gated_and_convolved(
    widened: tl.tensor,
    position: tl.tensor,
    b1: tl.tensor,
    b2: tl.tensor,
    taps: tl.tensor,
    bias: tl.tensor,
    convolved: tl.tensor,
    width: tl.tensor,
    TAPS: tl.constexpr,
    PIECE: tl.constexpr,
) -> None:
    columns = tl.program_id(1) * PIECE + tl.arange(0, PIECE)
    inside = columns < width
    row = tl.program_id(0).to(tl.int64)
    rows_above = tl.load(position + row + 0 * columns)  # the same for all columns
    onto_half = tl.load(b1 + columns, mask=inside, other=0.0).to(tl.float32)
    onto_gate = tl.load(b2 + columns, mask=inside, other=0.0).to(tl.float32)
    total = tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    for above in tl.static_range(TAPS):
        there = inside & (rows_above >= above)
        place = widened + (row - above) * 2 * width + columns
        half = tl.load(place, mask=there, other=0.0).to(tl.float32) + onto_half
        gate = tl.load(place + width, mask=there, other=0.0).to(tl.float32) + onto_gate
        tap = tl.load(taps + columns * TAPS + TAPS - 1 - above, mask=there, other=0.0).to(tl.float32)
        total += half * gate * tl.sigmoid(gate) * tap
    tl.store(convolved + row * width + columns, total.to(convolved.dtype.element_ty), mask=inside)


def gated_and_convolved(
    widened: Tensor, position: Tensor, b1: Tensor, b2: Tensor, taps: Tensor, bias: Tensor
) -> Tensor:
    """As `worker.engines.fast_conformer` has it: the gate, then a causal convolution of each channel."""
    rows, width, most = widened.shape[0], widened.shape[1] // 2, taps.shape[-1]
    made = widened.new_empty(rows, width)
    grid = (rows, triton.cdiv(width, _PIECE))
    told = (widened.contiguous(), position, b1, b2, taps, bias, made, width)
    _gated_and_convolved[grid](*told, TAPS=most, PIECE=_PIECE, num_warps=_WARPS)
    return made
