"""The one arithmetic of GPU memory: what model, adapters and KV cache need on a card, and whether a card has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from phi4.errors import EngineUnavailable
from worker.engines.gpu import Card

GIB = 2**30
#: The share of a card that vLLM claims unless told otherwise; the rest is for the driver and what else runs there.
UTILIZATION = 0.92
#: Working memory of a step (8,192 tokens through the MLP, the logits of 256 requests, an image's crops in the vision
#: tower) and CUDA graphs. vLLM took 0.6 GiB for them on an H200; the rest is margin.
RESERVE = 3 * GIB // 2
_BLOCK = 16  #: tokens that vLLM's KV cache gives out at once
_ITEM = 2  #: bytes of a bfloat16
#: From the model's limit down to the least that is useful: a page at 150 dpi is 3,300 tokens, and its text must fit.
_LENGTHS = (131_072, 98_304, 65_536, 49_152, 32_768, 24_576, 16_384, 12_288, 8_192, 6_144, 4_096)
# SigLIP so400m, whose sizes vLLM does not read from the checkpoint: 26 of 27 layers are run, 14-pixel patches of 448.
_VISION_LAYERS, _VISION_WIDTH, _VISION_MLP, _VISION_PATCHES, _PATCH_VALUES = 26, 1_152, 4_304, 32 * 32, 14 * 14 * 3


class NotEnoughMemory(EngineUnavailable):
    """The cards of this machine cannot carry the model as it is set."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes that decide on memory, by default those of Phi-4-multimodal-instruct."""

    hidden: int = 3_072
    mlp: int = 8_192
    layers: int = 32
    heads: int = 24
    kv_heads: int = 8
    vocabulary: int = 200_064
    tied: bool = True  #: input and output embedding are one matrix
    adapter_rank: int = 320  #: the larger of both, for which vLLM makes room in each slot
    audio_width: int = 1_024
    audio_mlp: int = 1_536
    audio_layers: int = 24
    audio_channels: int = 1_024
    audio_bins: int = 80

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """Read the sizes from a checkpoint's config.json; what it does not say is as in Microsoft's."""
        audio = _part(_part(config, "audio_processor"), "config")
        ranks = [_part(config, adapter).get("r") or 0 for adapter in ("vision_lora", "speech_lora")]
        named = {
            "hidden": config.get("hidden_size"),
            "mlp": config.get("intermediate_size"),
            "layers": config.get("num_hidden_layers"),
            "heads": config.get("num_attention_heads"),
            "kv_heads": config.get("num_key_value_heads"),
            "vocabulary": config.get("vocab_size"),
            "tied": config.get("tie_word_embeddings"),
            "adapter_rank": max(ranks) or None,
            "audio_width": audio.get("attention_dim"),
            "audio_mlp": audio.get("linear_units"),
            "audio_layers": audio.get("num_blocks"),
            "audio_channels": _part(audio, "nemo_conv_settings").get("conv_channels"),
            "audio_bins": audio.get("input_size"),
        }
        sizes: dict[str, Any] = {name: value for name, value in named.items() if isinstance(value, int)}
        return cls(**sizes)

    @property
    def head_width(self) -> int:
        """Values in one attention head."""
        return self.hidden // self.heads

    @property
    def decoder_parameters(self) -> int:
        """Parameters of the language model."""
        qkv = self.hidden * (self.heads + 2 * self.kv_heads) * self.head_width
        layer = qkv + self.hidden * self.hidden + 3 * self.hidden * self.mlp + 2 * self.hidden
        return self.layers * layer + self.hidden + self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def vision_tower_parameters(self) -> int:
        """Parameters of the part of the image encoder that vLLM splits over cards."""
        layer = 4 * _VISION_WIDTH**2 + 2 * _VISION_WIDTH * _VISION_MLP
        return _VISION_LAYERS * layer + (_VISION_PATCHES + _PATCH_VALUES) * _VISION_WIDTH

    @property
    def whole_parameters(self) -> int:
        """Parameters that every card keeps whole: the audio encoder, and the projections of images and audio."""
        width, channels = self.audio_width, self.audio_channels
        layer = 6 * width * self.audio_mlp + 8 * width**2
        first = width * channels * -(-self.audio_bins // 8) + 2 * channels**2
        image, audio = (side * self.hidden + self.hidden**2 for side in (_VISION_WIDTH, width))
        # Sound beside an image has a projection of its own.
        return self.audio_layers * layer + first + image + 2 * audio

    @property
    def parallel_sizes(self) -> tuple[int, ...]:
        """Over how many cards the model can be split: what divides its heads."""
        sizes = (n for n in (1, 2, 4, 8) if self.heads % n == 0)
        # Where there are more cards than KV heads, several cards hold the same one.
        return tuple(n for n in sizes if self.kv_heads % n == 0 or n % self.kv_heads == 0)

    def kv_bytes_a_token(self, tensor_parallel: int = 1, item: int = _ITEM) -> int:
        """Bytes of KV cache that a token takes on each card."""
        return 2 * self.layers * max(1, self.kv_heads // tensor_parallel) * self.head_width * item

    def adapter_parameters(self, tensor_parallel: int = 1) -> int:
        """Parameters of an adapter slot on each card, where only one side of each of its two factors is split."""
        qkv = (self.heads + 2 * self.kv_heads) * self.head_width
        whole = 2 * (self.hidden + self.hidden)  # into qkv and gate_up, out of o and down
        split = qkv + self.hidden + 2 * self.mlp + self.mlp
        return self.layers * self.adapter_rank * (whole + split // tensor_parallel)


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that one card must give, by what they are for."""

    weights: int
    adapters: int
    kv_cache: int
    reserve: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.adapters + self.kv_cache + self.reserve

    def card(self, utilization: float = UTILIZATION) -> int:
        """The size of card of which vLLM, claiming its share, gets that much."""
        return int(self.total / utilization)

    def __str__(self) -> str:
        parts = {"weights": self.weights, "adapters": self.adapters, "KV cache": self.kv_cache, "working": self.reserve}
        return ", ".join(f"{name} {gb(size)}" for name, size in parts.items())


def need(
    shape: Shape,
    *,
    max_model_len: int,
    adapters: int = 2,
    tensor_parallel: int = 1,
    sequences: int = 1,
    kv_item_bytes: int = _ITEM,
) -> Need:
    """Compute what each of `tensor_parallel` cards needs for `sequences` requests of full length at once.

    `adapters` is vLLM's `max_loras`: how many slots of the larger rank it keeps. `kv_item_bytes` is 1 for an fp8 cache.
    """
    split = (shape.decoder_parameters + shape.vision_tower_parameters) // tensor_parallel
    tokens = -(-max_model_len // _BLOCK) * _BLOCK
    return Need(
        weights=(split + shape.whole_parameters) * _ITEM,
        adapters=adapters * shape.adapter_parameters(tensor_parallel) * _ITEM,
        kv_cache=sequences * tokens * shape.kv_bytes_a_token(tensor_parallel, kv_item_bytes),
        reserve=RESERVE,
    )


def longest(shape: Shape, budget: int, **terms: int) -> int:
    """Find the longest of a few round context lengths that fits into `budget` bytes a card; 0 for none.

    `terms` are those of `need`.
    """
    for length in _LENGTHS:
        each = need(shape, max_model_len=length, **terms)
        if each.total <= budget:
            return length
    return 0


def check(
    shape: Shape,
    cards: Sequence[Card],
    *,
    max_model_len: int,
    tensor_parallel: int = 1,
    adapters: int = 2,
    utilization: float = UTILIZATION,
    kv_item_bytes: int = _ITEM,
) -> None:
    """Raise `NotEnoughMemory`, saying what to set, unless these cards carry one request of full length.

    Only the first `tensor_parallel` cards count. Without any (vLLM's CPU build, or none that can be measured) only the
    split itself is checked. Further requests need no check: vLLM lets them wait for room in the KV cache.
    """
    check_split(shape, cards, tensor_parallel)
    if not cards:
        return
    wanted = need(
        shape,
        max_model_len=max_model_len,
        adapters=adapters,
        tensor_parallel=tensor_parallel,
        kv_item_bytes=kv_item_bytes,
    )
    smallest = min(cards[:tensor_parallel], key=lambda card: card.total)
    budget = int(smallest.total * utilization)
    if wanted.total > budget:
        advice = _advice(shape, budget, adapters=adapters, wanted_len=max_model_len, now=tensor_parallel)
        each = "" if tensor_parallel == 1 else f" on each of {tensor_parallel} GPUs"
        raise NotEnoughMemory(
            f"PHI4_MAX_MODEL_LEN={max_model_len} needs {gb(wanted.total)} GB{each} ({wanted}), but {smallest} gives "
            f"{gb(budget)} of its {gb(smallest.total)} GB: {advice}."
        )
    for card in cards[:tensor_parallel]:
        _check_free(card, wanted, utilization)


def gb(size: int) -> str:
    """Write bytes as GB of 2^30, the way nvidia-smi and the names of cards count."""
    return f"{size / GIB:.1f}"


def check_split(shape: Shape, cards: Sequence[Card], tensor_parallel: int) -> None:
    """Raise `NotEnoughMemory` unless the model can be split so, over cards that are there."""
    if tensor_parallel not in shape.parallel_sizes:
        raise NotEnoughMemory(
            f"TENSOR_PARALLEL_SIZE={tensor_parallel} does not divide this model's {shape.heads} heads and "
            f"{shape.kv_heads} KV heads: set it to one of {', '.join(map(str, shape.parallel_sizes))}."
        )
    if cards and len(cards) < tensor_parallel:
        possible = max(size for size in shape.parallel_sizes if size <= len(cards))
        raise NotEnoughMemory(
            f"TENSOR_PARALLEL_SIZE={tensor_parallel} needs as many GPUs, but only {len(cards)} can be seen: "
            f"set TENSOR_PARALLEL_SIZE={possible}, or correct CUDA_VISIBLE_DEVICES."
        )


def _check_free(card: Card, wanted: Need, utilization: float) -> None:
    """Refuse a card of which less is free than the share that vLLM shall claim, for vLLM would not start on it."""
    if card.free >= card.total * utilization:
        return
    # A little of what is free now goes to the driver's context when vLLM starts.
    share = int((card.free - GIB / 2) / card.total * 100) / 100
    smaller = f", or set PHI4_EXTRA_SERVE_ARGS='--gpu-memory-utilization {share}'"
    raise NotEnoughMemory(
        f"{card} has {gb(card.free)} of {gb(card.total)} GB free, less than the {utilization:.0%} that vLLM claims: "
        f"end what else runs on it, or choose another GPU with CUDA_VISIBLE_DEVICES"
        f"{smaller if share * card.total >= wanted.total else ''}."
    )


def _advice(shape: Shape, budget: int, *, adapters: int, wanted_len: int, now: int) -> str:
    ways = []
    if length := longest(shape, budget, adapters=adapters, tensor_parallel=now):
        ways.append(f"PHI4_MAX_MODEL_LEN={length}")
    for size in shape.parallel_sizes:
        each = need(shape, max_model_len=wanted_len, adapters=adapters, tensor_parallel=size)
        if size > now and each.total <= budget:
            ways.append(f"TENSOR_PARALLEL_SIZE={size} with {size} such GPUs")
            break
    if ways:
        return f"set {', or '.join(ways)}"
    least = need(shape, max_model_len=_LENGTHS[-1], adapters=adapters, tensor_parallel=now)
    return f"it takes a GPU of {gb(least.card())} GB at least"


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = config.get(name)
    return part if isinstance(part, Mapping) else {}
