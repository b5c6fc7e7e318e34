"""Phi-4's image tower on vLLM's own weights, over the patches of all crops in one row, without those that are padding.

Microsoft's code lets no patch see the padding of its crop; vLLM's lets all see it, and works on it. Where a picture has
padding our tokens are therefore Microsoft's and not vLLM's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from worker.engines.add_norm import add_norm
from worker.engines.crops import SIDE


@dataclass(frozen=True, slots=True)
class Patches:
    """Which patches of some crops are looked at, by number: first all that are picture, then what they are joined with.

    Four patches become a token. A patch of padding that is in one with picture counts, so it takes all steps but
    attention, of which it gets nothing: as in FlashAttention's way with padding, which Microsoft's code takes.
    """

    rows: NDArray[np.int64]
    ends: NDArray[np.int32]  #: how many patches of picture there are up to each crop, from 0 on

    @classmethod
    def of(cls, masks: NDArray[np.bool_]) -> Patches:
        """Read them off masks (crops, 32, 32), which are False in the padding."""
        joined = masks[:, ::2, ::2].repeat(2, 1).repeat(2, 2) & ~masks
        ends = np.concatenate([[0], masks.sum((1, 2)).cumsum()]).astype(np.int32)
        return cls(np.concatenate([np.flatnonzero(masks), np.flatnonzero(joined)]), ends)

    @property
    def pictured(self) -> int:
        """How many are picture."""
        return int(self.ends[-1])

    @property
    def most(self) -> int:
        """How many are picture in the fullest crop."""
        return int(np.diff(self.ends).max())


def look(tower: Any, hidden: Tensor, masks: NDArray[np.bool_]) -> Tensor:
    """Look at embedded crops (n, 1024, width) with masks (n, 32, 32); gives (n, 256, width), no matter what in padding.

    `tower` is vLLM's Idefics2VisionTransformer.
    """
    half, width = SIDE // 2, hidden.shape[-1]
    if masks.all():
        patches, seen = None, _layers(tower, hidden.flatten(0, 1), _full(len(masks)))
    else:
        patches = Patches.of(masks)
        rows = to_device(hidden.device, torch.from_numpy(patches.rows))
        seen = hidden.new_zeros(hidden.shape[0] * hidden.shape[1], width)
        seen[rows] = _layers(tower, hidden.flatten(0, 1)[rows], patches)
    return seen.view(len(masks), half, 2, half, 2, width).mean((2, 4)).flatten(1, 2)


def _full(crops: int) -> Patches:
    return Patches(np.arange(0), np.arange(crops + 1, dtype=np.int32) * SIDE * SIDE)


def _layers(tower: Any, hidden: Tensor, patches: Patches) -> Tensor:
    layers = list(tower.encoder.layers)
    ends = to_device(hidden.device, torch.from_numpy(patches.ends))
    normed = layers[0].layer_norm1(hidden)
    for layer, following in pairwise([*layers, None]):
        heard = _attend(layer.self_attn, layer.self_attn.qkv_proj(normed)[0], patches, ends)
        hidden, normed = _added(hidden, layer.self_attn.out_proj(heard)[0], layer.layer_norm2)
        thought = layer.mlp.fc2(_activated(layer.mlp, normed))[0]
        if following is None:
            return hidden + thought
        hidden, normed = _added(hidden, thought, following.layer_norm1)
    raise AssertionError("a tower without layers")


def _added(hidden: Tensor, more: Tensor, norm: Any) -> tuple[Tensor, Tensor]:
    return add_norm(hidden, more, norm.weight, norm.bias, norm.eps)


def _activated(mlp: Any, normed: Tensor) -> Tensor:
    """The first half of a layer's MLP; on a GPU the activation is part of the matrix product."""
    first = mlp.fc1
    # cuBLAS approximates GELU by tanh.
    if normed.is_cuda and mlp.config.hidden_act == "gelu_pytorch_tanh" and first.weight.dtype == normed.dtype:
        return torch._addmm_activation(first.bias, normed, first.weight.t(), use_gelu=True)
    activated: Tensor = mlp.activation_fn(first(normed)[0])
    return activated


def _attend(attention: Any, qkv: Tensor, patches: Patches, ends: Tensor) -> Tensor:
    """Let the patches of each crop hear each other; of `qkv` (patches, 3 × width) the first are picture."""
    count, width = patches.pictured, qkv.shape[1] // 3
    query, key, value = qkv[:count].view(count, 3, -1, attention.head_dim).unbind(1)
    heard = qkv.new_empty(len(qkv), width)
    heard[count:] = 0
    into = heard[:count].view(count, -1, attention.head_dim)
    if qkv.is_cuda and attention.attn.is_flash_attn_backend:
        from vllm.v1.attention.backends.fa_utils import flash_attn_varlen_func

        flash_attn_varlen_func(
            query,
            key,
            value,
            out=into,
            cu_seqlens_q=ends,
            cu_seqlens_k=ends,
            max_seqlen_q=patches.most,
            max_seqlen_k=patches.most,
            softmax_scale=attention.scale,
            # A crop is short: cut in pieces that are put together again, it takes longer.
            num_splits=1,
            fa_version=attention.attn._fa_version,
        )
        return heard
    for one in _crops(patches):
        alone = (part[one].transpose(0, 1) for part in (query, key, value))
        into[one] = functional.scaled_dot_product_attention(*alone, scale=attention.scale).transpose(0, 1)
    return heard


def _crops(patches: Patches) -> Iterator[slice]:
    return (slice(first, last) for first, last in pairwise(patches.ends.tolist()) if last > first)


def to_device(device: torch.device, tensor: Tensor) -> Tensor:
    """Copy to the GPU without waiting for what it has still to do, which memory that is not pinned would."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
