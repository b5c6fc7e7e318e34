"""Running a job again: one more run however often it is asked for, and nothing of the run before in its way."""

from __future__ import annotations

from typing import Any

import pytest

from phi4.errors import Cancelled, NotRetryable, QueueFull
from phi4.job import NewJob
from phi4.store import Store
from phi4.store.keys import key
from tests.making_jobs import (
    check_store,
    claim,
    complete,
    finished,
    plan,
    prepared,
    raw,
    read,
    refused,
    submit,
    take_hook,
)

BOUND = 1_000


@pytest.fixture(autouse=True)
def _consistent_store(store: Store) -> Any:
    """After every test here: counters equal what they count, and all keys have an end."""
    yield
    check_store(store)


def cancelled(store: Store, **fields: Any) -> NewJob:
    """A job that was cancelled after one of its two parts was done."""
    job = prepared(store, 2, **fields)
    complete(store, claim(store))
    store.jobs.cancel(job.id, Cancelled())
    store.work.end(claim(store, "prepare"), "completed", result="r")
    assert read(store, job).status == "cancelled"
    return job


def test_a_job_run_again_is_as_new(store: Store) -> None:
    """Queued, nothing done, nothing used, no error, no stop; only its runs are counted."""
    job = cancelled(store)

    store.jobs.retry(read(store, job), most_waiting=BOUND)

    again = read(store, job)
    assert (again.status, again.attempts, again.added, again.done, again.stop) == ("queued", 2, 0, 0, "")
    assert (again.error, again.result, again.usage, again.engine, again.ended_ms) == (None, "", {}, "", 0)
    assert again.queued_ms == again.retried_ms >= again.created_ms
    assert store.work.waiting() == {"prepare": 1}
    plan(store, claim(store, "prepare"), 1)
    finish = complete(store, claim(store))
    assert finish is not None
    store.work.end(finish, "completed", result="r")
    assert (read(store, job).status, read(store, job).usage) == ("completed", {"pages": 1.0})


def test_the_same_retry_twice_makes_one_run(store: Store) -> None:
    """Two callers that saw the same failure, or one whose answer got lost."""
    job = cancelled(store)
    seen = read(store, job)

    for _ in range(3):
        store.jobs.retry(seen, most_waiting=BOUND)

    assert read(store, job).attempts == 2
    assert store.work.waiting() == {"prepare": 1}
    claim(store, "prepare")


def test_a_worker_of_an_earlier_run_can_report_nothing(store: Store) -> None:
    """Its token is outdated, although the parts have the same numbers."""
    job = prepared(store)
    lost = claim(store)
    store.work.put_back(lost, counts=True)
    store.jobs.cancel(job.id, Cancelled())
    store.jobs.retry(read(store, job), most_waiting=BOUND)
    plan(store, claim(store, "prepare"), 1)
    held = claim(store)

    assert int(held.token) > int(lost.token)
    refused(store, lost, job)


@pytest.mark.parametrize("state", ["queued", "completed", "deleted"])
def test_only_what_failed_or_was_cancelled_runs_again(store: Store, state: str) -> None:
    """The error says how the job stands, and nothing changes."""
    job = finished(store) if state == "completed" else submit(store)
    seen = read(store, job)
    if state == "deleted":
        store.jobs.delete(job.id)

    with pytest.raises(NotRetryable, match=state):
        store.jobs.retry(seen, most_waiting=BOUND)

    assert state == "deleted" or read(store, job) == seen


def test_a_full_queue_takes_no_retry(store: Store) -> None:
    """The job stays as it was."""
    job = cancelled(store)
    seen = read(store, job)
    submit(store)

    with pytest.raises(QueueFull):
        store.jobs.retry(seen, most_waiting=1)

    assert read(store, job) == seen


def test_each_run_has_its_own_webhooks(store: Store) -> None:
    """An end is told again after another run, and all of them go with the job."""
    job = cancelled(store, webhook_url="https://a.example/h", webhook_events=("job.cancelled",))
    store.jobs.retry(read(store, job), most_waiting=BOUND)
    store.jobs.cancel(job.id, Cancelled())

    hooks = [take_hook(store) for _ in range(3)]

    assert [hook.name.split("|")[1:] for hook in hooks if hook] == [["job.cancelled", "1"], ["job.cancelled", "2"]]
    store.jobs.delete(job.id)
    assert raw(store).keys(key("hook", "*")) == []


def test_a_deadline_is_given_again(store: Store) -> None:
    """As long as the first, from the retry."""
    job = cancelled(store, cancel_after=600)
    assert raw(store).zscore(key("deadlines"), job.id) is None

    store.jobs.retry(read(store, job), most_waiting=BOUND)

    assert raw(store).zscore(key("deadlines"), job.id) == read(store, job).retried_ms + 600_000
