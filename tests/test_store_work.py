"""Work as workers see it: who gets what, who may report, and who finishes the job."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from phi4.errors import Cancelled, LeaseLost
from phi4.job import Unit
from phi4.store import Store
from phi4.store.keys import key
from phi4.store.work import Outcome, Reported
from tests.making_jobs import (
    DONE,
    FAILED,
    LONG_MS,
    VISION,
    WORKER,
    check_store,
    claim,
    complete,
    finished,
    lose_lease,
    nothing_waits,
    plan,
    prepared,
    raw,
    read,
    reap_until,
    refused,
    snapshot,
    submit,
)


@pytest.fixture(autouse=True)
def _consistent_store(store: Store) -> Any:
    """After every test here: counters equal what they count, owners have one turn each, and all keys have an end."""
    yield
    check_store(store)


# -- claim: who is next


def test_a_claim_hands_over_the_job_and_the_part(store: Store) -> None:
    """The worker needs no second look, and who starts a job's first part can tell by the status before."""
    job = prepared(store, 2, metadata={"a": "b"}, traceparent="00-aa-bb-01")
    part = claim(store)
    assert (part.job.id, part.name, part.tries, part.suspect) == (job.id, "0", 0, False)
    assert part.spec == {"input": 0, "page": 1}
    assert (part.job.metadata, part.job.trace_id, part.job.status) == ({"a": "b"}, "aa", "queued")
    assert (read(store, job).status, claim(store).job.status) == ("in_progress", "in_progress")


def test_owners_take_turns(store: Store) -> None:
    """A thousand jobs of one owner hold up another's by one."""
    for owner in "aaaabbc":
        submit(store, owner)
    assert [claim(store, "prepare").job.owner for _ in range(7)] == list("abcabaa")


def test_an_owner_who_comes_late_waits_for_one_turn_of_each(store: Store) -> None:
    """The ring goes on from where it is."""
    for owner in "aaabbb":
        submit(store, owner)
    assert claim(store, "prepare").job.owner == "a"
    submit(store, "c")
    assert [claim(store, "prepare").job.owner for _ in range(6)] == list("bacbab")


def test_work_of_one_owner_goes_in_order_of_arrival(store: Store) -> None:
    """Parts of an earlier job go first, in the order of pages."""
    first, second = prepared(store, 2), prepared(store, 2)
    order = [(u.job.id, u.name) for u in (claim(store) for _ in range(4))]
    assert order == [(first.id, "0"), (first.id, "1"), (second.id, "0"), (second.id, "1")]


def test_queues_do_not_mix(store: Store) -> None:
    """Types and priorities wait apart."""
    job = prepared(store, priority="high", type="asr", params={})
    assert store.work.claim(VISION, WORKER, LONG_MS) is None
    assert claim(store, "infer.speech.high").job.id == job.id


def test_an_empty_queue_gives_nothing(store: Store) -> None:
    """Not an error; tickets may be doubled or late."""
    assert store.work.claim("prepare", WORKER, LONG_MS) is None
    assert store.work.claim("no.such.queue", WORKER, LONG_MS) is None


def test_a_record_of_a_newer_version_stays_in_the_queue(store: Store) -> None:
    """A worker of today leaves it to one of tomorrow, and does the work behind it."""
    newer, older = submit(store), submit(store)
    raw(store).hset(key("job", newer.id), "v", 2)
    claims = [store.work.claim("prepare", WORKER, LONG_MS) for _ in range(4)]
    assert [c.job.id for c in claims if c] == [older.id]
    assert store.work.waiting() == {"prepare": 1}
    raw(store).hset(key("job", newer.id), "v", 1)
    assert claim(store, "prepare").job.id == newer.id


# -- the window


@pytest.mark.parametrize("window", [1, 3, 7, 50])
def test_no_more_parts_than_the_window_wait_or_run(store: Store, window: int) -> None:
    """Each part that ends lets the next one in, until all are done."""
    job = submit(store, window=window)
    let_in = plan(store, claim(store, "prepare"), 8).let_in
    running: list[Unit] = []
    assert let_in == min(window, 8)
    while unit := store.work.claim(VISION, WORKER, LONG_MS):
        running.append(unit)
        assert len(running) <= window
        check_store(store)
        if len(running) == min(window, 8):
            complete(store, running.pop(0), FAILED if len(running) % 2 else DONE)
            check_store(store)
    for unit in running:
        complete(store, unit)
    assert (read(store, job).done + read(store, job).failed, store.work.waiting()) == (8, {})


def test_parts_are_let_in_while_preparation_goes_on(store: Store) -> None:
    """The first pages are read before the last one is made; the job is not finished before it is sealed."""
    job = submit(store, window=2)
    prepare = claim(store, "prepare")
    assert plan(store, prepare, 1, sealed=False) == Reported(let_in=1, finish=None, wake="", ended=None)
    assert complete(store, claim(store)) is None
    assert (read(store, job).status, read(store, job).prepared_ms) == ("in_progress", 0)
    assert plan(store, prepare, 1, first=1).let_in == 1
    assert complete(store, claim(store)) is not None


def test_a_preparation_run_again_leaves_known_parts_as_they_are(store: Store) -> None:
    """What was answered before the worker died is not asked again."""
    job = submit(store)
    prepare = claim(store, "prepare")
    plan(store, prepare, 2, sealed=False)
    complete(store, claim(store))
    lose_lease(store, prepare)
    again = claim(store, "prepare")
    plan(store, again, 3)
    assert [p.state for p in snapshot(store, job)[1]] == ["done", "ready", "ready"]
    with pytest.raises(LeaseLost):
        plan(store, prepare, 9)


def test_a_job_without_parts_is_finished_by_its_preparation(store: Store) -> None:
    """There is nothing to wait for."""
    submit(store)
    planned = plan(store, claim(store, "prepare"), 0)
    assert (planned.let_in, planned.finish is not None) == (0, True)


# -- fencing: who may report


def test_a_report_is_taken_once(store: Store) -> None:
    """A duplicate changes nothing, whatever it says."""
    job = prepared(store, 2)
    part = claim(store)
    complete(store, part)
    refused(store, part, job)


def test_a_late_report_is_not_taken(store: Store) -> None:
    """The part belongs to its next attempt: while that waits, while it runs, and after it reported."""
    job = prepared(store, 2)
    late = claim(store)
    lose_lease(store, late)
    refused(store, late, job)
    claim(store)
    again = claim(store)
    assert (again.name, again.token) == (late.name, "2")
    refused(store, late, job)
    complete(store, again)
    refused(store, late, job)


@pytest.mark.parametrize("end", ["cancelled", "deleted", "expired"])
def test_a_report_for_a_job_that_is_over_is_not_taken(store: Store, end: str) -> None:
    """No result appears after the end."""
    job = prepared(store, expires_in=0 if end == "expired" else 60)
    part = claim(store)
    if end == "cancelled":
        store.jobs.cancel(job.id, Cancelled())
        store.work.put_back(part, counts=False)
    elif end == "deleted":
        store.jobs.delete(job.id)
    else:
        reap_until(store, lambda r: job.id in r.expired)
    refused(store, part, job)


def test_a_finishing_that_was_lost_cannot_end_the_job(store: Store) -> None:
    """Only the newest attempt's result counts."""
    job = prepared(store)
    late = complete(store, claim(store))
    assert late is not None
    lose_lease(store, late)
    refused(store, late, job)
    store.work.end(claim(store, "prepare"), "completed", result="second")
    refused(store, late, job)
    assert read(store, job).result == "second"


def test_a_unit_reports_as_what_it_is_only(store: Store) -> None:
    """A preparation's token opens no part, though both are the first of their kind."""
    job = submit(store)
    prepare = claim(store, "prepare")
    plan(store, prepare, 2)
    claim(store)
    forged = Unit(prepare.job, "1", prepare.token)
    refused(store, forged, job)
    refused(store, prepare, job)


def test_a_number_that_redis_refuses_changes_nothing(store: Store) -> None:
    """A report fails whole, and can be made again."""
    job = prepared(store)
    part = claim(store)
    before = snapshot(store, job)
    with pytest.raises(Exception, match="float"):
        store.work.complete(part, Outcome(out="o", usage={"seconds": float("nan")}), WORKER, LONG_MS)
    assert snapshot(store, job) == before
    assert complete(store, part) is not None


# -- the last part


def test_the_last_part_hands_out_the_finishing(store: Store) -> None:
    """Once, to the report that came last, also when all parts failed."""
    job = prepared(store, 3)
    parts = [claim(store) for _ in range(3)]
    assert [complete(store, p, FAILED) is not None for p in parts] == [False, False, True]
    assert read(store, job).status == "in_progress"
    assert nothing_waits(store)


def test_a_worker_that_does_not_finish_jobs_leaves_it_to_others(store: Store) -> None:
    """One that keeps a GPU full: the finishing waits in the queue of the side workers, who are woken."""
    job = prepared(store, 1)

    reported = store.work.complete(claim(store), DONE, WORKER, LONG_MS, finishes=False)

    assert reported == Reported(let_in=0, finish=None, wake="prepare", ended=None)
    waiting = claim(store, "prepare")
    assert (waiting.job.id, waiting.name) == (job.id, "finish")
    store.work.end(waiting, "completed", result="r")
    assert read(store, job).status == "completed"


def test_finishing_goes_before_what_is_still_to_be_prepared(store: Store) -> None:
    """An answer that is there does not wait behind a stock of new jobs; of two, the first one is finished first."""
    jobs = [prepared(store, 1) for _ in range(2)]
    parts = [claim(store) for _ in jobs]
    newer = submit(store)
    for part in parts:
        store.work.complete(part, DONE, WORKER, LONG_MS, finishes=False)

    taken = [claim(store, "prepare") for _ in range(3)]

    assert [(unit.job.id, unit.name) for unit in taken] == [
        (jobs[0].id, "finish"),
        (jobs[1].id, "finish"),
        (newer.id, "prepare"),
    ]


def test_a_part_that_is_not_the_last_leaves_nothing_to_finish(store: Store) -> None:
    """Nobody is woken for nothing."""
    prepared(store, 2)

    reported = store.work.complete(claim(store), DONE, WORKER, LONG_MS, finishes=False)

    assert (reported.finish, reported.wake) == (None, "")


def test_reports_that_race_hand_out_the_finishing_once(store: Store) -> None:
    """Many threads report the last parts of many jobs at once, each part twice."""
    jobs = [prepared(store, 4) for _ in range(10)]
    parts = [claim(store) for _ in range(40)]
    handed: list[str] = []
    lost: list[str] = []
    start = threading.Barrier(8)

    def report(mine: list[Unit]) -> None:
        start.wait()
        for part in mine:
            try:
                if finish := complete(store, part):
                    handed.append(finish.job.id)
            except LeaseLost:
                lost.append(part.member)

    threads = [threading.Thread(target=report, args=(parts[n % 4 :: 4],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(handed) == sorted(j.id for j in jobs)
    assert len(lost) == 40


def test_claims_that_race_take_each_part_once(store: Store) -> None:
    """No part is run twice, and none is left."""
    for _ in range(5):
        prepared(store, 20)
    taken: list[str] = []

    def take() -> None:
        while unit := store.work.claim(VISION, WORKER, LONG_MS):
            taken.append(unit.member)

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(taken), len(set(taken))) == (100, 100)


def test_a_finished_job_has_its_result_and_its_times(store: Store) -> None:
    """The record tells the whole way in order."""
    job = finished(store, 2)
    found = read(store, job)
    assert (found.status, found.result, found.error) == ("completed", f"{job.id}/result.json", None)
    assert (found.expected, found.added, found.done, found.failed) == (2, 2, 2, 0)
    assert (found.engine, found.model, found.usage) == ("scripted", "m", {"pages": 2})
    times = [found.created_ms, found.preparing_ms, found.prepared_ms, found.started_ms, found.ended_ms]
    assert times == sorted(times)
    assert times[0] > 0
