"""A report whose answer got lost is made again, under the same word: it changes nothing, and is answered as before."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from phi4.errors import Cancelled, LeaseLost
from phi4.job import Unit
from phi4.store import Store
from phi4.store.work import Reported, new_report
from tests.making_jobs import DONE, LONG_MS, WORKER, check_store, claim, complete, finished, prepared, raw, submit

Report = Callable[[Store, str], Reported]


def _completes(store: Store) -> Report:
    part = claim_of_one(store)
    return lambda store, word: store.work.complete(part, DONE, WORKER, LONG_MS, again=word)


def _leaves_the_finishing(store: Store) -> Report:
    part = claim_of_one(store)
    return lambda store, word: store.work.complete(part, DONE, WORKER, LONG_MS, finishes=False, again=word)


def _puts_back(store: Store) -> Report:
    part = claim_of_one(store)
    return lambda store, word: store.work.put_back(part, counts=True, again=word)


def _drops_the_last(store: Store) -> Report:
    part = claim_of_one(store)
    store.jobs.cancel(part.job.id, Cancelled())
    return lambda store, word: store.work.put_back(part, counts=False, again=word)


def _ends(store: Store) -> Report:
    finish = complete(store, claim_of_one(store))
    assert finish is not None
    return lambda store, word: store.work.end(finish, "completed", result="r", again=word)


def _fails_in_preparation(store: Store) -> Report:
    submit(store)
    prepare = claim(store, "prepare")
    return lambda store, word: store.work.end(prepare, "failed", error={"code": "x"}, again=word)


def claim_of_one(store: Store) -> Unit:
    """The one part of a job, in a worker's hands."""
    prepared(store, 1)
    return claim(store)


WAYS = (_completes, _leaves_the_finishing, _puts_back, _drops_the_last, _ends, _fails_in_preparation)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__.strip("_"))
def test_it_is_answered_as_the_first_time(store: Store, way: Callable[[Store], Report]) -> None:
    """The finishing is not lost, an end is told, and a queue is woken; another report of the attempt comes too late."""
    report, word = way(store), new_report()
    first = report(store, word)
    before = {name: raw(store).dump(name) for name in raw(store).keys("phi4:job:*") + raw(store).keys("phi4:units:*")}

    again = report(store, word)

    assert again == first
    assert {name: raw(store).dump(name) for name in before} == before
    with pytest.raises(LeaseLost):
        report(store, new_report())
    check_store(store)


@pytest.mark.parametrize(("way", "ends"), [(_drops_the_last, "cancelled"), (_ends, "completed"), (_puts_back, None)])
def test_an_end_comes_with_the_job_as_it_was_then(
    store: Store, way: Callable[[Store], Report], ends: str | None
) -> None:
    """So that it can be told of whatever becomes of the job a moment later."""
    reported = way(store)(store, new_report())

    assert (reported.ended and reported.ended.status) == ends


def test_a_job_that_is_over_keeps_its_result(store: Store) -> None:
    """A finishing that comes after the end, whoever let it run, puts nothing in its place."""
    finished(store)
    job = submit(store, expires_in=0)
    finish = complete(store, _part_of(store))
    assert finish is not None
    raw(store).hset(f"phi4:job:{job.id}", mapping={"status": "completed", "result": "first"})

    store.work.end(finish, "completed", result="second")

    found = store.jobs.find(job.id)
    assert found is not None
    assert found.result == "first"


def _part_of(store: Store) -> Unit:
    store.work.plan(
        claim(store, "prepare"), [{"input": 0, "page": 1}], first=0, sealed=True, worker=WORKER, lease_ms=LONG_MS
    )
    return claim(store)
