"""A load model: how throughput, waiting and cost grow with GPUs, from measured figures: `python -m bench.simulate`.

Jobs of single pages arrive at random (exponential gaps) at a share of what the GPUs can do, the load. A free place is
given to the job that has waited longest, on the GPU with the fewest pages. A GPU with k pages gives each of them the
smaller of what a page gets alone, and the k-th part of its capacity: both are measured. Discrete events, the same each
time. What the model leaves out: preparation and network, which do not limit while there are side workers enough, and
pages of unequal length.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
from collections import deque
from dataclasses import dataclass, field
from itertools import accumulate
from operator import attrgetter
from pathlib import Path

_RESULTS = Path(__file__).parent / "results"
_GPUS = (1, 2, 4, 8, 16, 32, 64)
_LOADS = (0.5, 0.7, 0.9, 0.97)
#: At which a fleet should be run, and what Redis' one core may be used for then, so that its answers stay quick.
_PLANNED, _MOST_BUSY = 0.7, 0.6
#: Pages of a run, whatever the fleet and for each GPU; the first fifth, while the fleet fills up, is not counted.
_PAGES, _PAGES_PER_GPU = 4_000, 250


@dataclass(frozen=True)
class Measured:
    """What the model stands on: pages a second of a full GPU and of one page alone, Redis' milliseconds for a job."""

    capacity: float
    alone: float
    redis_ms: float
    places: int = 96


@dataclass
class _Gpu:
    """Pages share a GPU evenly, so each ends when its share of work since its start has grown by one."""

    measured: Measured
    done: float = 0.0  #: pages' worth that a page there since the start would have got
    at: float = 0.0
    ends: list[tuple[float, float]] = field(default_factory=list)  #: (share at the end, arrival)
    taken: int = 0
    next_end: float = float("inf")  #: if nothing comes in between

    def begin(self, now: float, arrival: float) -> None:
        """Take a page."""
        self._until(now)
        heapq.heappush(self.ends, (self.done + 1, arrival))
        self._look_ahead()

    def end(self, now: float) -> float:
        """Let the next page go; when it had arrived."""
        self._until(now)
        _, arrival = heapq.heappop(self.ends)
        self._look_ahead()
        return arrival

    def _rate(self) -> float:
        """What each page gets, in pages a second."""
        return min(self.measured.alone, self.measured.capacity / self.taken)

    def _until(self, now: float) -> None:
        if self.taken:
            self.done += (now - self.at) * self._rate()
        self.at = now

    def _look_ahead(self) -> None:
        self.taken = len(self.ends)
        self.next_end = self.at + (self.ends[0][0] - self.done) / self._rate() if self.ends else float("inf")


_NEXT_END, _TAKEN = attrgetter("next_end"), attrgetter("taken")


def measured() -> Measured:
    """Read the figures of one H100 and of the queue."""
    gpu, queue = (_figures(name) for name in ("gpu-1x-h100-80gb-hbm3", "redis"))
    return Measured(
        gpu["tuned_service_pages_per_second"], gpu["one_at_a_time_pages_per_second"], queue["redis_ms_per_job"]
    )


def _figures(name: str) -> dict[str, float]:
    return {f["name"]: f["value"] for f in json.loads((_RESULTS / f"{name}.json").read_text())["figures"]}


def simulate(gpus: int, load: float, on: Measured, pages: int) -> list[float]:
    """Run one fleet; how long each page took from its arrival to its end, in seconds, in the order of the ends."""
    chance = random.Random(f"{gpus} {load}")
    fleet = [_Gpu(on) for _ in range(gpus)]
    rate = load * gpus * on.capacity
    arrivals = deque(accumulate(chance.expovariate(rate) for _ in range(pages)))
    waiting: deque[float] = deque()
    took: list[float] = []
    while len(took) < pages:
        first = min(fleet, key=_NEXT_END)
        if arrivals and arrivals[0] <= first.next_end:
            now = arrivals.popleft()
            waiting.append(now)
        else:
            now = first.next_end
            took.append(now - first.end(now))
        _give(waiting, fleet, now)
    return took


def _give(waiting: deque[float], fleet: list[_Gpu], now: float) -> None:
    """Give free places to the pages that have waited longest."""
    while waiting:
        emptiest = min(fleet, key=_TAKEN)
        if emptiest.taken == emptiest.measured.places:
            return
        emptiest.begin(now, waiting.popleft())


def _settled(gpus: int, load: float, on: Measured) -> list[float]:
    """What pages took once the fleet was as full as it gets, shortest first."""
    pages = _PAGES + _PAGES_PER_GPU * gpus
    return sorted(simulate(gpus, load, on, pages)[pages // 5 :])


def table(dollars_per_gpu_hour: float = 3.0) -> str:
    """Simulate every fleet under every load; the line under the table says where Redis' core ends."""
    on = measured()
    redis_share = on.capacity * on.redis_ms / 1_000
    rows = []
    for gpus in _GPUS:
        times = (_settled(gpus, load, on) for load in _LOADS)
        told = " | ".join(f"{t[len(t) // 2]:.1f}, {t[int(len(t) * 0.95)]:.1f} s" for t in times)
        planned = f"{gpus * on.capacity * _PLANNED:.0f} | {gpus * dollars_per_gpu_hour:.0f}"
        rows.append(f"| {gpus} | {planned} | {told} | {gpus * redis_share * _PLANNED:.0%} |")
    thousand = dollars_per_gpu_hour / 3_600 / on.capacity * 1_000
    heads = " | ".join(f"at {load:.0%} load" for load in _LOADS)
    return "\n".join(
        [
            f"| GPUs | pages/s at {_PLANNED:.0%} | $ an hour | {heads} | Redis' core at {_PLANNED:.0%} |",
            "|---" * (len(_LOADS) + 4) + "|",
            *rows,
            "",
            "Seconds from POST to end, median and 95th percentile. "
            f"$ {thousand / _PLANNED:.2f} for 1 000 pages "
            f"at {_PLANNED:.0%} load and $ {dollars_per_gpu_hour:.2f} a GPU-hour. "
            f"One Redis, {_MOST_BUSY:.0%} busy, carries {int(_MOST_BUSY / (_PLANNED * redis_share))} GPUs.",
        ]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.simulate")
    parser.add_argument("--dollars-per-gpu-hour", type=float, default=3.0)
    print(table(parser.parse_args().dollars_per_gpu_hour))
