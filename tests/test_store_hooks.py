"""What is owed to webhooks, and who hears of changes."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from phi4.errors import Cancelled
from phi4.job import Job
from phi4.store import Store
from phi4.store.keys import key
from tests.conftest import eventually
from tests.making_jobs import (
    LONG_MS,
    check_store,
    claim,
    finished,
    raw,
    read,
    submit,
)

CANCEL = Cancelled("Enough.")


@pytest.fixture(autouse=True)
def _consistent_store(store: Store) -> Any:
    """After every test here: counters equal what they count, owners have one turn each, and all keys have an end."""
    yield
    check_store(store)


# -- webhooks' schedule


def events(store: Store) -> list[str]:
    """The names of the deliveries that are scheduled."""
    return [name.split("|")[1] for name in raw(store).zrange(key("hooks"), 0, -1)]


def with_hook(**fields: Any) -> dict[str, Any]:
    """A job's fields, with a webhook for every event."""
    every = ("job.started", "job.completed", "job.failed", "job.cancelled", "job.expired")
    return {"webhook_url": "https://a.example/h", "webhook_events": every} | fields


def test_events_are_scheduled_when_they_happen(store: Store) -> None:
    """Once each, and only those that were asked for."""
    finished(store, 2, **with_hook())
    assert sorted(events(store)) == ["job.completed", "job.started"]
    finished(store, **with_hook(webhook_events=("job.failed",)))
    assert len(events(store)) == 2
    store.jobs.cancel(submit(store, **with_hook()).id, CANCEL)
    assert sorted(events(store)) == ["job.cancelled", "job.completed", "job.started"]


def test_a_delivery_is_taken_by_one_and_due_again_when_its_taker_dies(store: Store) -> None:
    """For as long as its lease; nothing is lost."""
    job = submit(store, **with_hook())
    store.jobs.cancel(job.id, CANCEL)
    hook = store.hooks.take(50)
    assert hook is not None
    assert (hook.job_id, hook.event, hook.tries, hook.url) == (job.id, "job.cancelled", 0, "https://a.example/h")
    assert store.hooks.take(50) in (None, hook)
    assert eventually(lambda: store.hooks.take(LONG_MS), what="the end of the lease") == hook
    assert store.hooks.take(LONG_MS) is None


@pytest.mark.parametrize("outcome", ["delivered", "given_up"])
def test_a_delivery_that_is_over_is_not_due_again(store: Store, outcome: Any) -> None:
    """Also when a try that outlived its lease reports after it, and says that it failed."""
    store.jobs.cancel(submit(store, **with_hook()).id, CANCEL)
    hook = store.hooks.take(LONG_MS)
    assert hook is not None
    store.hooks.tried(hook, outcome, "200")
    store.hooks.tried(hook, "retry", "timeout", 0)
    assert store.hooks.take(LONG_MS) is None
    assert raw(store).hget(key("hook", hook.name), "outcome") == outcome


def test_a_delivery_tried_in_vain_is_due_after_its_wait(store: Store) -> None:
    """And knows how often it was tried."""
    store.jobs.cancel(submit(store, **with_hook()).id, CANCEL)
    hook = store.hooks.take(LONG_MS)
    assert hook is not None
    store.hooks.tried(hook, "retry", "503", LONG_MS)
    assert store.hooks.take(LONG_MS) is None
    store.hooks.tried(hook, "retry", "503", 0)
    again = store.hooks.take(LONG_MS)
    assert (again and again.name, again and again.tries) == (hook.name, 2)


def test_a_deleted_jobs_delivery_is_not_revived_by_its_report(store: Store) -> None:
    """The worker that posted it comes too late."""
    job = submit(store, **with_hook())
    store.jobs.cancel(job.id, CANCEL)
    hook = store.hooks.take(LONG_MS)
    assert hook is not None
    store.jobs.delete(job.id)
    store.hooks.tried(hook, "retry", "503", 0)
    assert store.hooks.take(LONG_MS) is None
    assert not raw(store).exists(key("hook", hook.name))


def test_tries_are_counted_by_what_came_of_them(store: Store) -> None:
    """Those that were reported too late are not."""
    assert store.hooks.outcomes() == {}
    for outcomes in (("retry", "retry", "delivered"), ("given_up", "retry"), ("delivered",)):
        store.jobs.cancel(submit(store, **with_hook()).id, CANCEL)
        hook = store.hooks.take(LONG_MS)
        assert hook is not None
        for outcome in outcomes:
            store.hooks.tried(hook, outcome, "…", LONG_MS)  # type: ignore[arg-type]  # they are outcomes
    assert store.hooks.outcomes() == {"retry": 2, "delivered": 2, "given_up": 1}


# -- telling


def test_every_change_of_status_is_told(store: Store) -> None:
    """Who waits for a job hears of each step."""
    with raw(store).pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(key("changes"))
        assert channel.get_message(timeout=2) is None  # the confirmation, which is ignored
        job = finished(store)
        store.jobs.delete(job.id)
        told: list[str] = []
        numbers: list[int] = []
        while not told or told[-1] != "deleted":
            if message := channel.get_message(timeout=2):
                about, number, event, data = message["data"].split(" ", 3)
                assert about == job.id
                numbers.append(int(number))
                told.append(json.loads(data).get("status", event))
    assert told == ["queued", "in_progress", "progress", "completed", "result", "deleted"]
    assert numbers == [1, 2, 3, 4, 5, 0]


def test_a_wait_ends_with_the_job(store: Store) -> None:
    """The waiter gets the job as it is then."""
    job = submit(store)
    waiter: list[Job] = []
    thread = threading.Thread(
        target=lambda: waiter.append(store.changes.wait_until(read(store, job), lambda j: j.status.is_terminal, 20))
    )
    thread.start()
    store.jobs.cancel(job.id, CANCEL)
    thread.join(20)
    assert [j.status for j in waiter] == ["cancelled"]


def test_a_wait_that_is_over_gives_the_job_as_it_is(store: Store) -> None:
    """Not an error."""
    job = read(store, submit(store))
    assert store.changes.wait_until(job, lambda j: False, 0) == job


def test_an_error_reads_as_it_was_written(store: Store) -> None:
    """Whatever its message holds."""
    job = submit(store)
    error = {"code": "x", "message": 'a "b"\n|ä\x00 \\ {}', "list": [], "number": 1.5}
    store.work.end(claim(store, "prepare"), "failed", error=error)
    assert json.dumps(read(store, job).error) == json.dumps(error)
