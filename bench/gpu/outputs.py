"""What another precision changes in answers, in numbers: one engine's answers, judged token by token by another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from bench.gpu.raw import Told


@dataclass(frozen=True)
class Difference:
    """How far a judge is from who wrote the answers."""

    same: float  #: share of the tokens that the judge would have written too
    change: float  #: mean absolute difference of the tokens' log-probabilities, in nats


def difference(written: Sequence[Told], judged: Sequence[Told]) -> Difference:
    """Compare what two engines think of the same answers; the first wrote them, always its likeliest token."""
    ranks = list(chain.from_iterable(one.ranks for one in judged))
    before = chain.from_iterable(one.logprobs for one in written)
    after = chain.from_iterable(one.logprobs for one in judged)
    changes = [abs(one - other) for one, other in zip(before, after, strict=True)]
    return Difference(sum(rank == 1 for rank in ranks) / len(ranks), sum(changes) / len(changes))
