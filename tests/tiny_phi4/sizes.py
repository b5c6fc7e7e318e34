"""How large a checkpoint is: every number in which the tiny one differs from the published one."""

from __future__ import annotations

from dataclasses import dataclass

VOCABULARY = 200_064
MEL_BINS = 80


@dataclass(frozen=True, slots=True)
class Decoder:
    """The language model; `long_factors` stretch each pair of rotary channels in prompts beyond 4096 tokens."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    long_factors: tuple[float, ...]

    @property
    def qkv(self) -> int:
        """Rows of the joint projection to queries, keys and values."""
        return self.hidden + 2 * self.kv_heads * (self.hidden // self.heads)

    @property
    def projections(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of each projection of a layer that adapters change."""
        return {
            "self_attn.qkv_proj": (self.qkv, self.hidden),
            "self_attn.o_proj": (self.hidden, self.hidden),
            "mlp.gate_up_proj": (2 * self.intermediate, self.hidden),
            "mlp.down_proj": (self.hidden, self.intermediate),
        }


@dataclass(frozen=True, slots=True)
class Vision:
    """The image tower."""

    hidden: int
    layers: int
    heads: int
    intermediate: int


@dataclass(frozen=True, slots=True)
class Audio:
    """The audio encoder."""

    hidden: int
    blocks: int
    heads: int
    linear: int
    conv_channels: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """A whole checkpoint; `dynamic_hd` is the largest number of crops of one image, beside its global view."""

    decoder: Decoder
    vision: Vision
    audio: Audio
    vision_rank: int
    speech_rank: int
    dynamic_hd: int

    @property
    def ranks(self) -> dict[str, int]:
        """The rank of each adapter."""
        return {"vision": self.vision_rank, "speech": self.speech_rank}


TINY = Sizes(
    decoder=Decoder(hidden=64, layers=2, heads=2, kv_heads=1, intermediate=128, long_factors=tuple(range(1, 13))),
    vision=Vision(hidden=32, layers=2, heads=2, intermediate=64),
    audio=Audio(hidden=32, blocks=1, heads=2, linear=32, conv_channels=16),
    vision_rank=8,
    speech_rank=16,
    dynamic_hd=36,
)

#: The published checkpoint. Its own long factors are measured ones; these rise alike and cost as much.
FULL = Sizes(
    decoder=Decoder(
        hidden=3072,
        layers=32,
        heads=24,
        kv_heads=8,
        intermediate=8192,
        long_factors=tuple(round(min(1.1183**n, 48.0), 6) for n in range(48)),
    ),
    vision=Vision(hidden=1152, layers=27, heads=16, intermediate=4304),
    audio=Audio(hidden=1024, blocks=24, heads=16, linear=1536, conv_channels=1024),
    vision_rank=256,
    speech_rank=320,
    dynamic_hd=36,
)
