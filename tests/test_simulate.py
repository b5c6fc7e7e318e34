"""The load model does what its first lines say."""

from __future__ import annotations

import pytest

from bench.simulate import Measured, simulate

#: A GPU that reads a page in 2 s and fills up with 12 pages.
GPU = Measured(capacity=6.0, alone=0.5, redis_ms=1.0)


def test_an_idle_fleet_takes_a_page_s_own_time() -> None:
    """Nothing waits, and no page shares its GPU to its loss."""
    took = simulate(4, 0.05, GPU, pages=500)

    assert len(took) == 500
    assert took == pytest.approx([2.0] * 500)


def test_pages_that_share_a_full_gpu_take_longer() -> None:
    """At most `capacity` pages end in a second, however many there are."""
    one_place = Measured(capacity=6.0, alone=0.5, redis_ms=1.0, places=1)
    full = simulate(1, 5.0, GPU, pages=500)

    assert max(full) > 500 / 6 - 500 / 30 - 2
    assert max(simulate(1, 5.0, one_place, pages=500)) > max(full)


def test_many_gpus_wait_less_at_the_same_load() -> None:
    """Chance evens out over a fleet."""
    small, large = (sorted(simulate(gpus, 0.95, GPU, pages=3_000)) for gpus in (1, 8))

    assert large[2_850] < small[2_850]
