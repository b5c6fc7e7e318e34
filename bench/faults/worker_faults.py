"""Faults of the workers: killed, asked to stop alone or with their group, ended again and again by one part."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from bench.faults.mix import Accepted, Kind
from bench.faults.processes import Processes, processes, until
from bench.faults.run import Fault, Scene
from tests.scripted_jobs import document, picture

#: What is asked to stop ends so, however it was asked.
_CLEAN = 0


def _kill(scene: Scene) -> None:
    """Kill the worker while it has parts of one job, whatever else it has."""
    job = scene.mix.send(scene.http, Kind("ocr", "sleep 2", (picture(8), picture(9)), 2), priority="high")
    assert job is not None
    until(lambda: _status(scene, job) == "in_progress", seconds=60, what="its start")
    scene.service.kill("infer")


def _kill_side(scene: Scene) -> None:
    scene.service.kill("side")


def _ask(scene: Scene) -> None:
    _stop(scene, group=False)


def _ask_group(scene: Scene) -> None:
    _stop(scene, group=True)


@contextmanager
def _under_up(**env: str) -> Iterator[Processes]:
    with processes(under_up=True, **env) as service:
        yield service


def _interrupt(scene: Scene) -> None:
    """Press Ctrl-C: a terminal sends it to the whole group. Then start the command again."""
    pid = scene.service.running["up"].pid
    scene.service.signal("up", signal.SIGINT, group=True)
    scene.service.await_restart("up", pid)
    scene.service.await_ready()


def _stop(scene: Scene, *, group: bool) -> None:
    """Ask one of the workers, whichever it falls on, and wait for its successor."""
    name = scene.chance.choice(["infer", "side"])
    pid = scene.service.running[name].pid
    scene.service.signal(name, signal.SIGTERM, group=group)
    scene.service.await_restart(name, pid)


def _ended_clean(scene: Scene) -> list[str]:
    return [f"{name} ended with {codes}" for name, codes in scene.service.codes.items() if set(codes) != {_CLEAN}]


def _poison(scene: Scene) -> None:
    """One part that ends every worker, beside 63 that do no harm."""
    fatal = Kind("ocr", "sleep 0.3 exit", (picture(9),), 1, ends="failed")
    innocents = Kind("ocr", "sleep 0.3", (document(*range(300, 363)),), 63)
    scene.mix.send(scene.http, innocents)
    scene.mix.send(scene.http, fatal)


def _found_out(scene: Scene) -> list[str]:
    """What is wrong with how the fatal part ended."""
    jobs = [scene.http.get(f"/v1/jobs/{one.id}").json() for one in scene.mix.accepted if one.kind.ends == "failed"]
    return [f"{job['id']} failed with {code}" for job in jobs if (code := job["error"]["code"]) != "worker_lost"]


def _hang(scene: Scene) -> None:
    """One part that hears nothing any more, with a deadline on its job."""
    pid = scene.service.running["infer"].pid
    while not _starts(scene):  # on a busy machine the deadline may come first
        pass
    scene.service.await_restart("infer", pid)


def _starts(scene: Scene) -> bool:
    hanging = Kind("ocr", "hang 600", (picture(9),), 1, ends="cancelled")
    job = scene.mix.send(scene.http, hanging, priority="high", cancel_after="6")
    assert job is not None
    until(lambda: _status(scene, job) != "queued", seconds=60, what="its start")
    return _status(scene, job) == "in_progress"


def _status(scene: Scene, job: Accepted) -> str:
    return str(scene.http.get(f"/v1/jobs/{job.id}").json()["status"])


KILLED = Fault("kill -9 of the inference worker in the middle of parts", _kill)
SIDE_KILLED = Fault("kill -9 of the side worker, in the middle of preparations and webhooks", _kill_side)
ASKED = Fault("SIGTERM to a worker", _ask, after=_ended_clean)
GROUP = Fault("SIGTERM to a worker's process group", _ask_group, after=_ended_clean)
INTERRUPTED = Fault(
    "Ctrl-C on `phi4 up`, which is started again (recovery from its being ready)",
    _interrupt,
    service=_under_up,
    after=_ended_clean,
)
POISON = Fault(
    "a part that ends its worker every time, 63 innocent ones beside it",
    _poison,
    kinds=(),
    bound=240.0,
    after=_found_out,
)
HANGS = Fault(
    "a part that hangs and ignores its deadline (PHI4_HANG_SECONDS=3)",
    _hang,
    env={"PHI4_HANG_SECONDS": "3", "PHI4_DRAIN_SECONDS": "10"},
)
