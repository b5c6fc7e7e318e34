"""How much the GPU bench measures, of which kinds: at full size, and enough to see that it works."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: What is measured, and which of PHI4_SERVE's values serves it.
KINDS = {"pages": "vision", "clips": "speech"}
#: A judge gives probabilities of a whole vocabulary for every token of a prompt, which wants memory.
_JUDGE = "--gpu-memory-utilization 0.7 --max-num-batched-tokens 2048"


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    in_flight: int = 96
    number: dict[str, int] = field(default_factory=lambda: {"pages": 288, "clips": 1536})  #: after a warm-up
    #: Two fillings of pages, and more clips than are done meanwhile, some 40 a second.
    mixed: dict[str, int] = field(default_factory=lambda: {"pages": 192, "clips": 3000})
    judged: int = 32  #: of each kind
    judge: str = _JUDGE  #: more arguments of engines that judge
    other: dict[str, Any] = field(default_factory=lambda: {"fp8": "all"})  #: the precision that is compared
    alone: int = 6
    tokens: dict[str, int] = field(default_factory=lambda: {"pages": 256, "clips": 100})
    half_load_s: float = 20.0

    def of(self, kind: str) -> str:
        """Describe what one kind of sample is."""
        what = {"pages": "A4 pages at 150 dpi", "clips": "recordings of 30 s"}[kind]
        return f"{self.number[kind]} new {what}, {self.tokens[kind]} tokens each, {self.in_flight} in flight"


FULL = Size()
TINY = Size(
    8,
    {"pages": 8, "clips": 8},
    mixed={"pages": 4, "clips": 8},
    alone=2,
    tokens={"pages": 16, "clips": 16},
    half_load_s=3.0,
    judged=4,
    judge="",
    other={"extra_serve_args": "--dtype bfloat16"},
)
