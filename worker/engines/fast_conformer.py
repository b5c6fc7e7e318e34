"""One conformer block of Phi-4's speech encoder, on vLLM's own weights and with fewer passes over memory.

vLLM computes it in some sixty kernels, most of which read and write everything to add or multiply. Here what stands
between two matrix products is one kernel, on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from worker.engines.add_norm import add_norm

#: PyTorch's default, which the published encoder keeps.
_EPS = 1e-5


def suits(layer: Any) -> bool:
    """Whether a block is built as the published ones; where it is not, vLLM's own code must run."""
    norms = (layer.feed_forward_in.layer_norm, layer.layer_norm_att, layer.conv.layer_norm)
    return (
        all(_norm_suits(norm) for norm in (*norms, layer.feed_forward_out.layer_norm, layer.layer_norm))
        and _feed_forward_suits(layer.feed_forward_in)
        and _feed_forward_suits(layer.feed_forward_out)
        and _attention_suits(layer.self_attn)
        and _convolution_suits(layer.conv)
    )


def blocks(frames: Tensor, bias: Tensor, layers: Iterable[Any]) -> Tensor:
    """What the layers make of (clips, frames, width); `bias` is added to attention: (clips, heads, frames, frames)."""
    # Clips stand below each other, as rows: one clip would else be compiled for apart from several.
    rows, position = frames.flatten(0, 1), torch.arange(frames.shape[1], device=frames.device).repeat(len(frames))
    for layer in layers:
        rows = _block(rows, bias, position, layer)
    return rows.view_as(frames)


def _block(rows: Tensor, bias: Tensor, position: Tensor, layer: Any) -> Tensor:
    normed = _normed(rows, layer.feed_forward_in.layer_norm)
    rows, normed = _added(rows, _feed_forward(normed, layer.feed_forward_in), layer.layer_norm_att, share=0.5)
    rows, normed = _added(rows, _attention(normed, bias, layer.self_attn), layer.conv.layer_norm)
    rows, normed = _added(rows, _convolution(normed, position, layer.conv), layer.feed_forward_out.layer_norm)
    return _added(rows, _feed_forward(normed, layer.feed_forward_out), layer.layer_norm, share=0.5)[1]


def _added(rows: Tensor, more: Tensor, norm: Any, *, share: float = 1.0) -> tuple[Tensor, Tensor]:
    """The sum, and the sum normed for what comes next."""
    return add_norm(rows, more, norm.weight, norm.bias, _EPS, share=share)


def _feed_forward(normed: Tensor, part: Any) -> Tensor:
    widened, narrowed = part.net[0].linear, part.net[2]
    return _linear(_gated(functional.linear(normed, widened.weight), widened.bias), narrowed)


def _attention(normed: Tensor, bias: Tensor, part: Any) -> Tensor:
    query, key, value = (
        _linear(normed, linear).view(len(bias), -1, part.h, part.d_k).transpose(1, 2)
        for linear in (part.linear_q, part.linear_k, part.linear_v)
    )
    # vLLM's eager code scales the queries, which is the same: the bias is added to what is scaled already.
    seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=part.inv_sqrt_d_k)
    return _linear(seen.transpose(1, 2).reshape(len(normed), -1), part.linear_out)


def _convolution(normed: Tensor, position: Tensor, part: Any) -> Tensor:
    gate, depthwise = part.glu, part.dw_sep_conv_1d
    widened, taps = _pointwise(normed, gate.ext_pw_conv_1d), depthwise.dw_conv
    convolved = gated_and_convolved(widened, position, gate.b1, gate.b2, taps.weight, taps.bias)
    return _pointwise(functional.silu(_pointwise(convolved, depthwise.pw_conv)), part.ext_pw_conv_1d)


def _linear(rows: Tensor, linear: Any) -> Tensor:
    return functional.linear(rows, linear.weight, linear.bias)


def _pointwise(rows: Tensor, convolution: Any) -> Tensor:
    """A convolution that looks at one frame is a matrix product, and wants no transposing."""
    return functional.linear(rows, convolution.weight.squeeze(-1), convolution.bias)


def _normed(rows: Tensor, norm: Any) -> Tensor:
    return functional.layer_norm(rows, norm.normalized_shape, norm.weight, norm.bias, _EPS)


def _gated(widened: Tensor, bias: Tensor) -> Tensor:
    if widened.is_cuda:
        from worker.engines import gpu_kernels

        return gpu_kernels.gated(widened, bias)
    half, gate = (widened + bias).chunk(2, dim=-1)
    return half * functional.silu(gate)


def gated_and_convolved(
    widened: Tensor, position: Tensor, b1: Tensor, b2: Tensor, taps: Tensor, bias: Tensor
) -> Tensor:
    """The gate, then the causal convolution of each channel: the last tap is of a row itself, others of rows above it.

    A row's `position` is the number of rows above it in its own clip.
    """
    if widened.is_cuda:
        from worker.engines import gpu_kernels

        return gpu_kernels.gated_and_convolved(widened, position, b1, b2, taps, bias)
    half, gate = widened.chunk(2, dim=-1)
    gated = (half + b1.flatten()) * functional.silu(gate + b2.flatten())
    most = taps.shape[-1] - 1
    padded = functional.pad(gated, (0, 0, most, 0))
    convolved = bias + gated * taps[:, 0, most]
    for above in range(1, most + 1):
        shifted = padded[most - above : most - above + len(gated)]
        seen = torch.where((position >= above).unsqueeze(1), shifted, 0)
        convolved = convolved + seen * taps[:, 0, most - above]
    return convolved


def _norm_suits(norm: Any) -> bool:
    return bool(norm.eps == _EPS and norm.weight is not None and norm.bias is not None)


def _feed_forward_suits(part: Any) -> bool:
    widened, gate = part.net[0].linear, part.net[0].glu_act
    return widened.bias is not None and gate.dim == -1 and _is_swish(gate.act_fn) and _keeps_all(part)


def _attention_suits(part: Any) -> bool:
    # vLLM's own attention drops also when it does not train, so that a rate alone tells.
    return bool(part.h == part.h_k and part.dropout_rate == 0)


def _convolution_suits(part: Any) -> bool:
    gate, depthwise = part.glu, getattr(part.dw_sep_conv_1d, "dw_conv", None)
    return (
        part.causal
        and not part.export  # it would not pad
        and not part.batch_norm
        and part.ext_pw_kernel_size == 1
        # Where a width differs, another layer brings it back.
        and part.input_dim == part.ext_pw_out_channel == part.depthwise_seperable_out_channel
        and hasattr(gate, "ext_pw_conv_1d")
        and gate.bias_in_glu
        and _is_swish(gate.glu_act)
        and _is_swish(part.act)
        and depthwise is not None
        and depthwise.in_channels == depthwise.out_channels == depthwise.groups
        and depthwise.padding == (depthwise.kernel_size[0] - 1,)
        and _keeps_all(part)
    )


def _is_swish(activation: Any) -> bool:
    return isinstance(activation, torch.nn.SiLU)


def _keeps_all(part: Any) -> bool:
    dropouts = [module for module in part.modules() if isinstance(module, torch.nn.Dropout)]
    return all(dropout.p == 0 for dropout in dropouts)
