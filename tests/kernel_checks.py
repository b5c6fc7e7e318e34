"""Our Triton kernels give what torch gives: on a GPU, and without one in Triton's interpreter.

Run by test_vllm_gpu_kernels.py in a process of its own, since Triton chooses when it is imported. On a GPU host:
`python -m pytest tests/kernel_checks.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional

from worker.engines import fast_conformer, gpu_kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
#: Rounded once instead of after each step, they are at most as far from exact as torch.
_CLOSE = {torch.float32: 1e-5, torch.bfloat16: 0.06}


@pytest.fixture(autouse=True)
def _repeatable() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


def _random(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(*shape).to(DEVICE, dtype)


@pytest.mark.parametrize("dtype", _CLOSE)
@pytest.mark.parametrize("width", [64, 1024, 1152])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_sum_and_its_norm(width: int, share: float, dtype: torch.dtype) -> None:
    """Of widths that fill Triton's blocks and of such that do not."""
    hidden, more = _random(9, width, dtype=dtype), _random(9, width, dtype=dtype)
    weight, bias = _random(width, dtype=dtype), _random(width, dtype=dtype)

    total, normed = gpu_kernels.add_norm(hidden, more, weight, bias, 1e-6, share)

    expected = hidden.float() + share * more.float()
    torch.testing.assert_close(total.float(), expected, rtol=0, atol=_CLOSE[dtype])
    norm = functional.layer_norm(expected, (width,), weight.float(), bias.float(), 1e-6)
    torch.testing.assert_close(normed.float(), norm, rtol=_CLOSE[dtype], atol=_CLOSE[dtype])


@pytest.mark.parametrize("dtype", _CLOSE)
@pytest.mark.parametrize("width", [96, 1024, 1536])
def test_a_gate(width: int, dtype: torch.dtype) -> None:
    """One half times SiLU of the other."""
    widened, bias = _random(5, 2 * width, dtype=dtype), _random(2 * width, dtype=dtype)

    made = gpu_kernels.gated(widened, bias)

    half, gate = (widened.float() + bias.float()).chunk(2, dim=-1)
    torch.testing.assert_close(made.float(), half * functional.silu(gate), rtol=_CLOSE[dtype], atol=_CLOSE[dtype])


@pytest.mark.parametrize("dtype", _CLOSE)
@pytest.mark.parametrize(("clips", "frames", "width"), [(1, 8, 64), (3, 16, 1024), (2, 48, 96)])
def test_a_gate_and_a_convolution_that_ends_at_a_clips_beginning(
    clips: int, frames: int, width: int, dtype: torch.dtype
) -> None:
    """No clip hears the end of the one above it."""
    widened = _random(clips * frames, 2 * width, dtype=dtype)
    b1, b2 = (_random(1, width, 1, dtype=dtype) for _ in range(2))
    taps, bias = _random(width, 1, 3, dtype=dtype), _random(width, dtype=dtype)
    position = torch.arange(frames, device=DEVICE).repeat(clips)

    made = gpu_kernels.gated_and_convolved(widened, position, b1, b2, taps, bias)

    exact = (given.cpu().float() for given in (b1, b2, taps, bias))
    expected = fast_conformer.gated_and_convolved(widened.cpu().float(), position.cpu(), *exact)
    torch.testing.assert_close(made.cpu().float(), expected, rtol=_CLOSE[dtype], atol=_CLOSE[dtype])
