"""How a job ends: cancelled at each moment, failed, or past its deadline."""

from __future__ import annotations

from typing import Any

import pytest

from phi4.errors import Cancelled
from phi4.job import NewJob, Status, error_json
from phi4.store import Store
from phi4.store.keys import key
from phi4.store.work import Reported
from tests.making_jobs import (
    FAILED,
    LONG_MS,
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
    reap,
    reap_until,
    snapshot,
    submit,
)

CANCEL = Cancelled("Enough.")


@pytest.fixture(autouse=True)
def _consistent_store(store: Store) -> Any:
    """After every test here: counters equal what they count, owners have one turn each, and all keys have an end."""
    yield
    check_store(store)


# -- cancel, at each moment


def cancelled(store: Store, job: NewJob, *, result: str = "") -> None:
    """Check that a job ended as cancelled and that nothing of it is left to do."""
    found = read(store, job)
    assert (found.status, found.result) == (Status.CANCELLED, result)
    assert found.error == error_json(CANCEL, "cancel")
    assert nothing_waits(store)
    assert store.jobs.ended() == {("ocr", "cancelled"): 1}


def test_a_queued_job_is_cancelled_at_once(store: Store) -> None:
    """Nobody has to be waited for."""
    job = submit(store)
    assert store.jobs.cancel(job.id, CANCEL).wake == ""
    cancelled(store, job)


def test_a_job_in_preparation_is_cancelled_when_that_has_stopped(store: Store) -> None:
    """Until then it says `cancelling`; the heartbeat tells the worker, and what it still plans is not added."""
    job = submit(store)
    prepare = claim(store, "prepare")
    plan(store, prepare, 1, sealed=False)
    assert store.work.heartbeat([prepare.member], LONG_MS) == ["ok"]
    store.jobs.cancel(job.id, CANCEL)
    assert read(store, job).status == "cancelling"
    assert store.work.heartbeat([prepare.member], LONG_MS) == ["stop"]
    assert plan(store, prepare, 1, first=1, sealed=False) == Reported(let_in=0, finish=None, wake="", ended=None)
    assert read(store, job).status == "cancelling"
    store.work.put_back(prepare, counts=False)
    cancelled(store, job)
    assert [p.state for p in snapshot(store, job)[1]] == ["dropped"]


def test_a_preparation_that_ends_before_it_hears_of_the_cancel_ends_the_job(store: Store) -> None:
    """Sealing adds nothing any more."""
    job = submit(store)
    prepare = claim(store, "prepare")
    store.jobs.cancel(job.id, CANCEL)
    reported = plan(store, prepare, 5)
    assert reported.ended == read(store, job)
    assert (reported.let_in, reported.finish, reported.wake) == (0, None, "")
    cancelled(store, job)


def test_a_preparation_that_fails_after_the_cancel_ends_as_cancelled(store: Store) -> None:
    """The cancel came first."""
    job = submit(store)
    prepare = claim(store, "prepare")
    store.jobs.cancel(job.id, CANCEL)
    store.work.end(prepare, "failed", error={"code": "unreadable_pdf"})
    cancelled(store, job)


def test_a_prepared_job_is_cancelled_at_once(store: Store) -> None:
    """Parts that wait, and those outside the window, are dropped."""
    job = prepared(store, 5, window=2)
    store.jobs.cancel(job.id, CANCEL)
    cancelled(store, job)


def test_a_running_job_is_cancelled_when_its_parts_have_stopped(store: Store) -> None:
    """`cancelled` is said only once it is true."""
    job = prepared(store, 5, window=3)
    running = [claim(store) for _ in range(2)]
    store.jobs.cancel(job.id, CANCEL)
    assert store.work.heartbeat([u.member for u in running], LONG_MS) == ["stop", "stop"]
    assert store.work.put_back(running[0], counts=False).wake == ""
    assert read(store, job).status == "cancelling"
    assert store.work.put_back(running[1], counts=False).wake == ""
    cancelled(store, job)


def test_what_a_cancelled_job_had_done_is_kept(store: Store) -> None:
    """With one part done, the last worker to stop leaves a finishing in the queue, which puts that part together."""
    job = prepared(store, 4, window=3)
    done, running = claim(store), claim(store)
    complete(store, done)
    store.jobs.cancel(job.id, CANCEL)
    assert store.work.put_back(running, counts=False).wake == "prepare"
    assert read(store, job).status == "cancelling"
    finish = claim(store, "prepare")
    assert finish.name == "finish"
    store.work.end(finish, "completed", result="what there is")
    cancelled(store, job, result="what there is")
    assert [p.state for p in snapshot(store, job)[1]] == ["done", "dropped", "dropped", "dropped"]


def test_a_part_done_while_its_job_is_being_cancelled_counts(store: Store) -> None:
    """It came too late to be stopped; the report hands out the finishing."""
    job = prepared(store, 2)
    part = claim(store)
    store.jobs.cancel(job.id, CANCEL)
    finish = complete(store, part)
    assert finish is not None
    store.work.end(finish, "completed", result="r")
    cancelled(store, job, result="r")


def test_a_part_failed_while_its_job_is_being_cancelled_ends_it(store: Store) -> None:
    """There is nothing to put together."""
    job = prepared(store, 2)
    part = claim(store)
    store.jobs.cancel(job.id, CANCEL)
    assert complete(store, part, FAILED) is None
    cancelled(store, job)


def test_a_job_cancelled_while_it_is_being_finished_is_cancelled(store: Store) -> None:
    """The finishing goes on, and its result is what was done."""
    job = prepared(store)
    finish = complete(store, claim(store))
    assert finish is not None
    assert store.jobs.cancel(job.id, CANCEL).wake == ""
    assert read(store, job).status == "cancelling"
    assert store.work.heartbeat([finish.member], LONG_MS) == ["ok"]
    store.work.end(finish, "completed", result="r")
    cancelled(store, job, result="r")


def test_a_job_cancelled_while_its_finishing_waits_is_cancelled(store: Store) -> None:
    """The finishing is not dropped with the rest."""
    job = prepared(store)
    finish = complete(store, claim(store))
    assert finish is not None
    store.work.put_back(finish, counts=False)
    store.jobs.cancel(job.id, CANCEL)
    store.work.end(claim(store, "prepare"), "completed", result="r")
    cancelled(store, job, result="r")


@pytest.mark.parametrize("lost", ["prepare", "part"])
def test_a_cancelled_jobs_worker_that_dies_is_waited_for_no_longer_than_its_lease(store: Store, lost: str) -> None:
    """The reaper drops what it held."""
    job = submit(store)
    unit = claim(store, "prepare")
    if lost == "part":
        plan(store, unit, 1)
        unit = claim(store)
    store.jobs.cancel(job.id, CANCEL)
    lose_lease(store, unit)
    cancelled(store, job)


def test_a_job_that_ended_cannot_be_cancelled(store: Store) -> None:
    """Nor can a second cancel change the first one's words, nor an unknown job be told anything."""
    done = finished(store)
    before = read(store, done)
    assert store.jobs.cancel(done.id, CANCEL).wake == ""
    assert read(store, done) == before
    job = submit(store)
    store.jobs.cancel(job.id, CANCEL)
    store.jobs.cancel(job.id, Cancelled("Again."))
    assert read(store, job).error == error_json(CANCEL, "cancel")
    assert store.jobs.cancel("job_none", CANCEL).wake == ""
    assert store.jobs.find("job_none") is None


# -- failing


def test_a_preparation_that_fails_fails_the_job(store: Store) -> None:
    """The error is the job's."""
    job = submit(store)
    error = {"code": "encrypted_pdf", "message": "No."}
    assert store.work.end(claim(store, "prepare"), "failed", error=error).wake == ""
    assert (read(store, job).status, read(store, job).error) == ("failed", error)
    assert nothing_waits(store)


def test_a_preparation_that_fails_late_waits_for_the_parts_that_run(store: Store) -> None:
    """They are told to stop; what was done is put together although the job failed."""
    job = submit(store, window=2)
    prepare = claim(store, "prepare")
    plan(store, prepare, 4, sealed=False)
    done, running = claim(store), claim(store)
    complete(store, done)
    error = {"code": "fetch_failed", "message": "No."}
    assert store.work.end(prepare, "failed", error=error).wake == ""
    assert read(store, job).status == "in_progress"
    assert store.work.heartbeat([running.member], LONG_MS) == ["stop"]
    assert store.work.put_back(running, counts=False).wake == "prepare"
    store.work.end(claim(store, "prepare"), "completed", result="r")
    assert (read(store, job).status, read(store, job).error) == ("failed", error)
    assert nothing_waits(store)


# -- deadlines


@pytest.mark.parametrize("running", [False, True])
def test_a_job_past_its_deadline_is_cancelled_with_its_own_code(store: Store, running: bool) -> None:
    """`cancel_after` is a cancel by the clock; jobs without one go on."""
    job = prepared(store, cancel_after=1)
    part = claim(store) if running else None
    patient = submit(store)
    assert reap(store).stopped == []
    reap_until(store, lambda r: r.stopped == [job.id])
    if part:
        assert read(store, job).status == "cancelling"
        assert store.work.heartbeat([part.member], LONG_MS) == ["stop"]
        store.work.put_back(part, counts=False)
    found = read(store, job)
    assert (found.status, found.error and found.error["code"]) == ("cancelled", "deadline_exceeded")
    assert read(store, patient).status == "queued"
    assert reap(store).stopped == []


def test_a_job_that_ended_in_time_has_no_deadline_any_more(store: Store) -> None:
    """Nothing is left for the reaper to look at."""
    done, cancelled = finished(store, cancel_after=1), submit(store, cancel_after=1)
    store.jobs.cancel(cancelled.id, CANCEL)
    for job in (done, cancelled):
        assert raw(store).zscore(key("deadlines"), job.id) is None
