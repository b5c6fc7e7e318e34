"""Faults of the job store: its server restarted, stopped, cut off, slow, or out of memory."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from bench.faults.processes import Processes, processes
from bench.faults.proxy import proxy
from bench.faults.run import Fault, Scene

_SLOW_S = 2.0


def _server(scene: Scene) -> redis.Redis:
    """A client of the server itself, whatever the service goes through."""
    return redis.Redis.from_url(scene.service.valkey.url, decode_responses=True)


def _restart(scene: Scene) -> None:
    scene.service.kill("valkey")
    pid = scene.service.running["valkey"].pid
    scene.service.await_restart("valkey", pid)


def _stop(scene: Scene) -> None:
    scene.service.signal("valkey", signal.SIGSTOP)
    scene.wait(15, 20)
    scene.service.signal("valkey", signal.SIGCONT)


def _cut(scene: Scene) -> None:
    with _server(scene) as server:
        for _ in range(3):
            for kind in ("normal", "pubsub"):
                server.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            scene.wait(0, 1)


def _fill(scene: Scene) -> None:
    """Leave the server less memory than it uses, as other data would; it may still read, and delete."""
    with _server(scene) as server:
        server.config_set("maxmemory", "1mb")
        scene.wait(5, 10)
        server.config_set("maxmemory", 0)


def _was_refused(scene: Scene) -> list[str]:
    return [] if scene.mix.refusals["503"] else ["nobody was told that the store is full"]


@contextmanager
def _behind_a_proxy(**env: str) -> Iterator[Processes]:
    with proxy() as between, processes(between, **env) as service:
        yield service


def _answer_slowly(scene: Scene) -> None:
    assert scene.service.proxy is not None
    scene.service.proxy.delay = _SLOW_S
    scene.wait(8, 15)
    scene.service.proxy.delay = 0.0


RESTARTED = Fault("Redis killed and restarted", _restart)
STOPPED = Fault("Redis stopped (SIGSTOP) for 15 to 20 s", _stop)
CUT = Fault("all connections of Redis killed, three times", _cut)
SLOW = Fault("Redis answers 2 s late for 8 to 15 s", _answer_slowly, service=_behind_a_proxy)
FULL = Fault(
    "Redis out of memory (maxmemory, noeviction) for 5 to 10 s: 503 meanwhile",
    _fill,
    excused=("storage_full",),
    after=_was_refused,
)
