"""A worker that is told to end before it works; tests of drains are beside what is drained."""

from __future__ import annotations

from collections.abc import Callable

from tests.conftest import Service, eventually

OwnService = Callable[..., Service]


def test_one_that_loads_ends_at_once(own_service: OwnService) -> None:
    """By a handler of its own: the first process of a container would not hear the signal else."""
    service = own_service()
    worker = service.start("slow", "worker", "infer", PHI4_METRICS_PORT="0", PHI4_ENGINE="tests.engines:Slow")
    eventually(lambda: "loading" in service.output("slow"), what="loading")

    worker.terminate()

    assert worker.wait(5) == 0
