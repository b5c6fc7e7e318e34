"""What a job's end leaves no use for is erased, however it ended: the files of its run, and an input `until_done`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from phi4.blobs import Blobs
from phi4.errors import BlobsUnavailable, Cancelled, ServiceError
from phi4.job import Input, Job, NewJob, input_blob
from phi4.queue import Tickets, celery_app
from phi4.settings import Settings
from phi4.store import Store, WorkerInfo
from tests.making_jobs import VISION, claim, finished, plan, raw, read, submit
from worker import metrics
from worker.arrivals import Arrivals
from worker.cache import ResultCache
from worker.finish import Finish
from worker.outgoing import Outgoing
from worker.reaper import Reaper
from worker.reports import Reports


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    """An empty blob store."""
    return Blobs(f"file://{tmp_path}/blobs")


@pytest.fixture
def tickets(valkey: str) -> Tickets:
    """Tickets on the broker of the tests."""
    return Tickets(celery_app(valkey))


@pytest.fixture
def reports(store: Store, blobs: Blobs, tickets: Tickets) -> Reports:
    """What follows a worker's reports."""
    return Reports(store, blobs, tickets)


def with_files(store: Store, blobs: Blobs, retention: str = "until_done", **fields: object) -> NewJob:
    """Submit a job whose input and first page are stored."""
    job = submit(store, input_retention=retention, **fields)
    blobs.put(input_blob(job.id, 0), b"private")
    blobs.put(f"{read(store, job).scratch}/0.image", b"private")
    return job


def left(store: Store, blobs: Blobs, job: NewJob) -> list[bool]:
    """Whether its input and its page are still there."""
    return [blobs.exists(input_blob(job.id, 0)), blobs.exists(f"{read(store, job).scratch}/0.image")]


def _fails_in_preparation(store: Store, reports: Reports, job: NewJob) -> None:
    prepare = claim(store, "prepare")
    reports.follow(prepare, store.work.end(prepare, "failed", error={"code": "unreadable_image"}))


def _is_cancelled_while_a_part_runs(store: Store, reports: Reports, job: NewJob) -> None:
    plan(store, claim(store, "prepare"), 1)
    part = claim(store)
    store.jobs.cancel(job.id, Cancelled())
    reports.follow(part, store.work.put_back(part, counts=False))


@pytest.mark.parametrize("ends", [_fails_in_preparation, _is_cancelled_while_a_part_runs])
@pytest.mark.parametrize(("retention", "kept"), [("until_done", [False, False]), ("until_expiry", [True, False])])
def test_an_end_without_a_result_leaves_nothing(
    store: Store, blobs: Blobs, reports: Reports, ends: Callable[..., None], retention: str, kept: list[bool]
) -> None:
    """An upload that could not be read is as private as one that was; one that is kept can be run again."""
    job = with_files(store, blobs, retention)

    ends(store, reports, job)

    assert read(store, job).status.is_terminal
    assert left(store, blobs, job) == kept
    assert raw(store).zcard("phi4:leftovers") == 0


def test_the_reaper_erases_after_who_died(store: Store, blobs: Blobs, tickets: Tickets) -> None:
    """A worker that ended a job and was killed before it erased: half a minute later nobody else will."""
    job = with_files(store, blobs)
    store.work.end(claim(store, "prepare"), "failed", error={"code": "x"})
    reaper = Reaper(store, blobs, tickets, worker="w", every=1, max_deaths=3)
    reaper.round()
    assert left(store, blobs, job) == [True, True]

    raw(store).zadd("phi4:leftovers", {f"{job.id}|1": 1})
    reaper.round()

    assert left(store, blobs, job) == [False, False]
    assert raw(store).zcard("phi4:leftovers") == 0


def test_what_cannot_be_erased_holds_up_no_other(
    store: Store, blobs: Blobs, tickets: Tickets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails on one file: the others' turn comes first, and the rest of the reaper's round is done."""
    stuck, other = with_files(store, blobs), with_files(store, blobs)
    for _ in range(2):
        store.work.end(claim(store, "prepare"), "failed", error={"code": "x"})
    raw(store).zadd("phi4:leftovers", {f"{stuck.id}|1": 1, f"{other.id}|1": 2})
    erase = blobs.delete

    def failing(key: str) -> None:
        if stuck.id in key:
            raise BlobsUnavailable("I/O error")
        erase(key)

    monkeypatch.setattr(blobs, "delete", failing)
    reaper = Reaper(store, blobs, tickets, worker="w", every=1, max_deaths=3)

    reaper.round()
    reaper.round()

    assert left(store, blobs, other) == [False, False]
    assert raw(store).zrange("phi4:leftovers", 0, -1) == [f"{stuck.id}|1"]


def test_a_job_that_runs_again_keeps_what_this_run_needs(store: Store, blobs: Blobs, tickets: Tickets) -> None:
    """Only what the earlier run left is erased."""
    job = with_files(store, blobs, "until_expiry")
    store.work.end(claim(store, "prepare"), "failed", error={"code": "x"})
    store.jobs.retry(read(store, job), most_waiting=10)
    blobs.put(f"{read(store, job).scratch}/0.image", b"private")
    raw(store).zadd("phi4:leftovers", {f"{job.id}|1": 1})

    Reaper(store, blobs, tickets, worker="w", every=1, max_deaths=3).round()

    assert left(store, blobs, job) == [True, True]
    assert not blobs.exists(f"{job.id}/run-1/0.image")


# -- an earlier result


def with_an_earlier_one(store: Store, blobs: Blobs) -> tuple[ResultCache, Job]:
    """A cache that has the answer to the question that all jobs here ask."""
    worker = WorkerInfo("w", (VISION,), "ready", "e", "m", 8, 0)
    store.workers.announce(worker)
    earlier = finished(store)
    raw(store).hset(f"phi4:job:{earlier.id}", mapping={"engine": "e", "model": "m"})
    blobs.put(read(store, earlier).result, b"{}")
    cache = ResultCache(store, Settings())
    cache.keep(read(store, earlier))
    return cache, read(store, earlier)


def test_parts_that_an_earlier_preparation_added_are_not_passed_by(
    store: Store, blobs: Blobs, reports: Reports
) -> None:
    """They may be running: a job that ended beside them would be changed by them afterwards."""
    cache, _ = with_an_earlier_one(store, blobs)
    finish = Finish(store, blobs, reports, cache)
    job = submit(store)
    first = claim(store, "prepare")
    plan(store, first, 2, sealed=False)
    store.work.put_back(first, counts=False)
    again = claim(store, "prepare")

    assert not finish.from_earlier(again, again.job.inputs)
    assert read(store, job).status == "queued"


def test_a_fetched_input_goes_with_a_result_that_is_given_again(store: Store, blobs: Blobs, reports: Reports) -> None:
    """The record does not have it yet; and what the cache did is counted."""
    cache, earlier = with_an_earlier_one(store, blobs)
    before = metrics.CACHE.labels("hit")._value.get()
    job = submit(store, input_retention="until_done", inputs=(Input(url="https://example.com/page.png"),))
    blobs.put(input_blob(job.id, 0), b"private")
    prepare = claim(store, "prepare")

    assert Finish(store, blobs, reports, cache).from_earlier(prepare, earlier.inputs)
    assert read(store, job).status == "completed"
    assert not blobs.exists(input_blob(job.id, 0))
    assert metrics.CACHE.labels("hit")._value.get() == before + 1


def test_an_answer_that_cannot_be_remembered_ends_its_job_all_the_same(
    store: Store, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis may be full, or away for a moment."""
    cache = ResultCache(store, Settings())

    def full(*_: object) -> None:
        raise ServiceError("full")

    monkeypatch.setattr(store.jobs, "remember", full)
    cache.keep(read(store, finished(store)))


# -- fetching


def test_what_is_told_to_stop_fetches_nothing_more(blobs: Blobs, store: Store) -> None:
    """Sixty-four slow addresses would hold a worker up until it took the job for hung."""
    inputs = tuple(Input(url=f"https://example.com/{n}.png") for n in range(3))
    submit(store, inputs=inputs)
    job = claim(store, "prepare").job

    def stopped() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        Arrivals(blobs, Outgoing(frozenset()), Settings()).at_hand(job, stopped)
