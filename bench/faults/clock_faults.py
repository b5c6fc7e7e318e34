"""Faults of machines' clocks: moved by an hour, those of the workers one way and that of the API the other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.faults.processes import Processes, processes
from bench.faults.run import Fault, Scene

_HOUR_S = 3_600


@contextmanager
def _with_clocks(**env: str) -> Iterator[Processes]:
    with processes(clocks_move=True, **env) as service:
        yield service


def _move(scene: Scene) -> None:
    way = scene.chance.choice((_HOUR_S, -_HOUR_S))
    for off in (way, 0):
        scene.service.move_clock("side", off)
        scene.service.move_clock("infer", off)
        scene.service.move_clock("api", -off)
        scene.wait(8, 15)


def _told_wrong_times(scene: Scene) -> list[str]:
    jobs = scene.http.get("/v1/jobs", params={"limit": 100}).raise_for_status().json()["data"]
    known = [(job["id"], job[name]) for job in jobs for name in ("created_at", "completed_at")]
    return [f"{i} tells a time that never was" for i, told in known if told and abs(time.time() - told) > _HOUR_S / 2]


MOVED = Fault(
    "the workers' clocks moved by an hour and back, the API's the other way",
    _move,
    service=_with_clocks,
    after=_told_wrong_times,
)
