"""What a worker holds: its leases are renewed, and what is told to stop is flagged."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from phi4.errors import Cancelled
from phi4.store import Store, WorkerInfo
from phi4.store.keys import key
from tests.conftest import eventually
from tests.making_jobs import LONG_MS, VISION, WORKER, claim, lose_lease, prepared, raw
from worker.in_flight import InFlight


def describe(in_flight: int) -> WorkerInfo:
    """What the worker says of itself."""
    return WorkerInfo(WORKER, (VISION,), "ready", in_flight=in_flight)


def make(
    store: Store,
    describe: Callable[[int], WorkerInfo] = describe,
    hang_after: float = 60.0,
    on_hang: Callable[[], None] = lambda: None,
) -> InFlight:
    """One worker's leases."""
    return InFlight(store, lease_ms=LONG_MS, every=0.02, hang_after=hang_after, describe=describe, on_hang=on_hang)


@pytest.fixture
def in_flight(store: Store) -> InFlight:
    """Leases that are renewed when told."""
    return make(store)


def test_a_beat_renews_the_leases_of_what_is_held(store: Store, in_flight: InFlight) -> None:
    """And of nothing else: what was let go runs out."""
    prepared(store, 2)
    held, let_go = claim(store, lease_ms=5_000), claim(store, lease_ms=5_000)
    with in_flight.holding(let_go):
        assert len(in_flight) == 1
    before = raw(store).zscore(key("leases"), let_go.member)
    with in_flight.holding(held):
        in_flight.beat()
        assert raw(store).zscore(key("leases"), held.member) > before + LONG_MS / 2
    assert raw(store).zscore(key("leases"), let_go.member) == before
    assert len(in_flight) == 0


def test_a_unit_of_a_cancelled_job_is_told_to_stop(store: Store, in_flight: InFlight) -> None:
    """Others go on."""
    job = prepared(store)
    doomed = claim(store)
    prepared(store)
    with in_flight.holding(doomed) as one, in_flight.holding(claim(store)) as other:
        in_flight.beat()
        assert not one.stopped.is_set()
        store.jobs.cancel(job.id, Cancelled())
        in_flight.beat()
        assert (one.stopped.is_set(), other.stopped.is_set()) == (True, False)


@pytest.mark.parametrize("how", ["reaped", "deleted"])
def test_a_unit_whose_lease_is_lost_is_told_to_stop(store: Store, in_flight: InFlight, how: str) -> None:
    """Its work is another's now, or nobody's."""
    job = prepared(store)
    part = claim(store)
    with in_flight.holding(part) as held:
        if how == "reaped":
            lose_lease(store, part)
        else:
            store.jobs.delete(job.id)
        in_flight.beat()
        assert held.stopped.is_set()


def test_all_can_be_told_to_stop(store: Store, in_flight: InFlight) -> None:
    """So that a worker that has to go lets go."""
    prepared(store, 3)
    with ExitStack() as stack:
        held = [stack.enter_context(in_flight.holding(claim(store))) for _ in range(3)]
        in_flight.stop_all()
        assert all(h.stopped.is_set() for h in held)


def test_a_unit_is_let_go_also_when_its_work_fails(store: Store, in_flight: InFlight) -> None:
    """Its lease would else be renewed for ever."""
    prepared(store)
    with pytest.raises(ZeroDivisionError), in_flight.holding(claim(store)):
        _ = 1 / 0
    assert len(in_flight) == 0


def test_a_worker_is_known_while_it_runs(store: Store, in_flight: InFlight) -> None:
    """It announces itself with what it holds, and takes its leave."""
    prepared(store)
    in_flight.start()
    with in_flight.holding(claim(store)):
        eventually(store.workers.alive, what="the first announcement")
        in_flight.announce()
        assert [(w.name, w.in_flight) for w in store.workers.alive()] == [(WORKER, 1)]
    in_flight.stop()
    assert store.workers.alive() == []


@pytest.fixture
def worker_that_stumbles(store: Store) -> Iterator[tuple[InFlight, list[int]]]:
    """Leases whose thread meets an error nobody foresaw, three times."""
    said: list[int] = []

    def stumble(held: int) -> WorkerInfo:
        said.append(held)
        if len(said) <= 3:
            raise ZeroDivisionError
        return describe(held)

    in_flight = make(store, stumble)
    in_flight.start()
    yield in_flight, said
    in_flight.stop()


def test_an_unforeseen_error_does_not_end_the_heartbeat(
    store: Store, worker_that_stumbles: tuple[InFlight, list[int]]
) -> None:
    """Leases are renewed after it as before."""
    in_flight, said = worker_that_stumbles
    job = prepared(store)
    with in_flight.holding(claim(store)) as held:
        eventually(lambda: len(said) > 3, what="the fourth beat")
        store.jobs.cancel(job.id, Cancelled())
        assert held.stopped.wait(20)


def test_what_pays_no_heed_to_its_flag_is_noticed(store: Store) -> None:
    """Only what was asked to stop hangs, however long the others take."""
    prepared(store, 2)
    noticed = threading.Event()
    in_flight = make(store, hang_after=0.1, on_hang=noticed.set)
    in_flight.start()
    with in_flight.holding(claim(store)) as deaf, in_flight.holding(claim(store)):
        assert not noticed.wait(0.5)
        deaf.stop()
        assert noticed.wait(20)
        assert in_flight.hung() == [deaf.unit]
        assert len(in_flight.units()) == 2
    in_flight.stop()
