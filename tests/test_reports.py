"""What follows a worker's report: queues are woken, and a job's end is told once, by the step that brought it about."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from phi4.blobs import Blobs
from phi4.errors import Cancelled
from phi4.queue import Tickets, celery_app
from phi4.store import Store
from phi4.store.keys import key
from tests.making_jobs import DONE, FAILED, LONG_MS, WORKER, claim, prepared, raw, submit
from worker.reaper import Reaper
from worker.reports import Reports


@pytest.fixture
def tickets(valkey: str) -> Tickets:
    """Tickets on the broker of the tests."""
    return Tickets(celery_app(valkey))


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    """An empty blob store."""
    return Blobs(f"file://{tmp_path}/blobs")


@pytest.fixture
def reports(store: Store, blobs: Blobs, tickets: Tickets, caplog: pytest.LogCaptureFixture) -> Reports:
    """One worker's; what it logs is kept."""
    caplog.set_level(logging.INFO)
    return Reports(store, blobs, tickets)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Every end that was told."""
    return [record.message for record in caplog.records if record.name == "worker.reports"]


def test_a_part_that_is_put_back_tells_nothing_of_an_end_by_another(
    store: Store, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    """Another thread may take it, run it and end the job before the first one has said that it put it back."""
    prepared(store, 1)
    part = claim(store)
    put_back = store.work.put_back(part, counts=True)
    again = claim(store)
    done = store.work.complete(again, DONE, WORKER, LONG_MS)
    assert done.finish is not None
    ended = store.work.end(done.finish, "failed", error={"code": "engine_failed"})

    reports.follow(done.finish, ended)
    reports.follow(again, done)
    reports.follow(part, put_back)

    assert told(caplog) == ["job failed"]


def test_a_part_that_stops_its_job_s_last_tells_of_the_cancel(
    store: Store, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    """Cancelling is the wish; the end is the last part's."""
    job = prepared(store, 2, window=2)
    first, last = claim(store), claim(store)
    assert store.jobs.cancel(job.id, Cancelled()).status == "cancelling"
    assert store.jobs.cancel(job.id, Cancelled()).status == ""

    for part in (first, last):
        reports.follow(part, store.work.put_back(part, counts=False))

    assert told(caplog) == ["job cancelled"]


def test_a_part_that_fails_while_its_job_is_stopped_tells_of_the_end_too(
    store: Store, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    """It had not heard of the wish yet; nothing is left to be put together."""
    job = prepared(store, 1)
    part = claim(store)
    store.jobs.cancel(job.id, Cancelled())

    reports.follow(part, store.work.complete(part, FAILED, WORKER, LONG_MS))

    assert told(caplog) == ["job cancelled"]


def test_a_worker_that_died_is_spoken_for_by_the_reaper(
    store: Store, blobs: Blobs, tickets: Tickets, caplog: pytest.LogCaptureFixture
) -> None:
    """Its job ends when its lease has run out; the reaper's round brings that about."""
    caplog.set_level(logging.INFO)
    job = prepared(store, 1)
    part = claim(store)
    store.jobs.cancel(job.id, Cancelled())
    raw(store).zadd(key("leases"), {part.member: 1})

    Reaper(store, blobs, tickets, worker="w", every=1, max_deaths=3).round()

    assert told(caplog) == ["job cancelled"]


def test_a_waiting_job_s_cancel_is_its_end(store: Store) -> None:
    """The API tells of that one."""
    job = submit(store)

    assert store.jobs.cancel(job.id, Cancelled()).status == "cancelled"


def test_a_job_that_is_run_again_at_once_is_told_of_as_it_ended(
    store: Store, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    """Its owner may be faster than who tells; a run that has just begun took no time yet."""
    submit(store)
    prepare = claim(store, "prepare")
    ended = store.work.end(prepare, "failed", error={"code": "x"})
    assert ended.ended is not None
    store.jobs.retry(ended.ended, most_waiting=10)

    reports.follow(prepare, ended)

    assert told(caplog) == ["job failed"]
