"""What is owed to webhooks, and who hears of changes."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from phi4.errors import Cancelled, DeliveryUnderWay, NotFound
from phi4.job import Job
from phi4.store import Store
from phi4.store.keys import MOST_HOOK_RUNS, MOST_HOOK_TRIES, key
from tests.conftest import eventually
from tests.making_jobs import (
    LONG_MS,
    check_store,
    claim,
    finished,
    raw,
    read,
    scheduled,
    submit,
    take_hook,
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
    return [name.split("|")[1] for name in scheduled(store)]


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
    hook = take_hook(store, 50)
    assert hook is not None
    assert (hook.job_id, hook.event, hook.tries, hook.url) == (job.id, "job.cancelled", 0, "https://a.example/h")
    assert take_hook(store, 50) in (None, hook)
    assert eventually(lambda: take_hook(store), what="the end of the lease") == hook
    assert take_hook(store) is None


@pytest.mark.parametrize("outcome", ["delivered", "given_up"])
def test_a_delivery_that_is_over_is_not_due_again(store: Store, outcome: Any) -> None:
    """Also when a try that outlived its lease reports after it, and says that it failed."""
    store.jobs.cancel(submit(store, **with_hook()).id, CANCEL)
    hook = take_hook(store)
    assert hook is not None
    store.hooks.tried(hook, outcome, "200")
    store.hooks.tried(hook, "retry", "timeout", wait_ms=0)
    assert take_hook(store) is None
    assert raw(store).hget(key("hook", hook.name), "outcome") == outcome


def test_a_delivery_tried_in_vain_is_due_after_its_wait(store: Store) -> None:
    """And knows how often it was tried."""
    store.jobs.cancel(submit(store, **with_hook()).id, CANCEL)
    hook = take_hook(store)
    assert hook is not None
    store.hooks.tried(hook, "retry", "503", wait_ms=LONG_MS)
    assert take_hook(store) is None
    store.hooks.tried(hook, "retry", "503", wait_ms=0)
    again = take_hook(store)
    assert (again and again.name, again and again.tries) == (hook.name, 2)


def test_a_deleted_jobs_delivery_is_not_revived_by_its_report(store: Store) -> None:
    """The worker that posted it comes too late."""
    job = submit(store, **with_hook())
    store.jobs.cancel(job.id, CANCEL)
    hook = take_hook(store)
    assert hook is not None
    store.jobs.delete(job.id)
    store.hooks.tried(hook, "retry", "503", wait_ms=0)
    assert take_hook(store) is None
    assert not raw(store).exists(key("hook", hook.name))


# -- how many at once


def cancelled(store: Store, url: str = "https://a.example/h", owner: str = "local") -> Job:
    """A job whose end is to be told."""
    job = submit(store, owner, **with_hook(webhook_url=url))
    store.jobs.cancel(job.id, CANCEL)
    return read(store, job)


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("https://a.example/other?x=1#y", True),
        ("http://A.EXAMPLE", True),
        ("https://a.example:444/h", False),
        ("https://b.example/h", False),
        ("https://a.example.org/h", False),
    ],
)
def test_a_receiver_is_a_host_and_port(store: Store, url: str, same: bool) -> None:
    """Those of one share its places, whatever the rest of their URLs."""
    cancelled(store)
    cancelled(store, url)
    assert store.hooks.take(LONG_MS, per_host=1, per_owner=100)
    assert (store.hooks.take(LONG_MS, per_host=1, per_owner=100) is None) == same


@pytest.mark.parametrize("ending", ["delivered", "retry", "deleted", "lost"])
def test_a_place_is_free_again_when_its_delivery_is_over(store: Store, ending: Any) -> None:
    """However it ended; also when its worker died, once its lease has."""
    jobs = [cancelled(store) for _ in range(3)]
    hook = store.hooks.take(100 if ending == "lost" else LONG_MS, per_host=1, per_owner=100)
    assert hook is not None
    if ending == "deleted":
        store.jobs.delete(hook.job_id)
    elif ending != "lost":
        assert store.hooks.take(LONG_MS, per_host=1, per_owner=100) is None
        store.hooks.tried(hook, ending, "x", wait_ms=LONG_MS)
    after = eventually(lambda: store.hooks.take(LONG_MS, per_host=1, per_owner=100), what="a free place")
    assert after.job_id in {job.id for job in jobs}
    assert store.hooks.take(LONG_MS, per_host=1, per_owner=100) is None
    assert len(scheduled(store)) == (2 if ending in ("delivered", "deleted") else 3)


def take_of(store: Store, lease_ms: int = LONG_MS) -> str | None:
    """Take the delivery that is due, of an owner that has none under way; gives its job."""
    hook = store.hooks.take(lease_ms, per_host=100, per_owner=1)
    return hook.job_id if hook else None


def test_an_owner_has_but_its_part_under_way(store: Store) -> None:
    """Over all of its receivers; another's delivery goes before those that have waited longer."""
    one, *_ = [cancelled(store, f"https://{n}.example/h", "one") for n in range(3)]
    another = cancelled(store, owner="another")
    assert [take_of(store) for _ in range(3)] == [one.id, another.id, None]


def test_an_owner_that_has_enough_holds_up_no_other_at_the_same_receiver(store: Store) -> None:
    """However few it lets through itself."""
    one, *_ = [cancelled(store, url, "one") for url in ("https://b.example/h", *["https://a.example/h"] * 5)]
    another = cancelled(store, owner="another")
    assert [take_of(store) for _ in range(3)] == [one.id, another.id, None]


@pytest.mark.parametrize("ending", ["delivered", "retry", "deleted", "lost"])
def test_an_owners_place_is_free_again_when_its_delivery_is_over(store: Store, ending: Any) -> None:
    """However it ended, and then for the receiver that has waited longest, though some that waited have gone."""
    jobs = [cancelled(store, f"https://{n}.example/h") for n in range(4)]
    hook = store.hooks.take(300 if ending == "lost" else LONG_MS, per_host=100, per_owner=1)
    assert hook is not None
    assert (hook.job_id, take_of(store)) == (jobs[0].id, None)
    store.jobs.delete(jobs[1].id)
    if ending == "deleted":
        store.jobs.delete(hook.job_id)
    elif ending != "lost":
        store.hooks.tried(hook, ending, "x", wait_ms=LONG_MS)
    after = eventually(lambda: take_of(store), what="a free place")
    assert after == jobs[2].id or (ending == "lost" and after in {job.id for job in jobs})
    assert take_of(store) is None
    check_store(store)


# -- the log


def test_every_try_is_kept_with_the_job(store: Store) -> None:
    """As long as the job, and the last ones only when there are very many."""
    job = cancelled(store)
    for number in range(MOST_HOOK_TRIES + 3):
        hook = take_hook(store)
        assert hook is not None
        store.hooks.tried(hook, "retry", str(500 + number), took_ms=7)
    [delivery] = store.hooks.deliveries(job.id)
    assert [t.answer for t in delivery.tries] == [str(500 + n) for n in range(3, MOST_HOOK_TRIES + 3)]
    assert [t.number for t in delivery.tries] == list(range(4, MOST_HOOK_TRIES + 4))
    assert {t.took_ms for t in delivery.tries} == {7}
    assert raw(store).pexpiretime(key("hook_tries", delivery.hook.name)) == raw(store).pexpiretime(key("job", job.id))


def test_the_last_runs_are_told(store: Store) -> None:
    """Of a job that was run again and again; the newest event first."""
    job = cancelled(store)
    for _ in range(MOST_HOOK_RUNS + 1):
        store.jobs.retry(read(store, job), most_waiting=10)
        store.jobs.cancel(job.id, CANCEL)
    runs = [int(d.hook.name.split("|")[2]) for d in store.hooks.deliveries(job.id)]
    assert len(runs) == MOST_HOOK_RUNS
    assert runs[0] == MOST_HOOK_RUNS + 2


@pytest.mark.parametrize("outcome", ["delivered", "gone", "given_up", "retry"])
def test_a_replayed_delivery_is_due_now_with_all_its_tries(store: Store, outcome: Any) -> None:
    """Whatever became of it before."""
    job = cancelled(store)
    hook = take_hook(store)
    assert hook is not None
    store.hooks.tried(hook, outcome, "x", wait_ms=LONG_MS)
    again = store.hooks.replay(job.id, hook.id)
    assert (again.hook, again.state, len(again.tries)) == (hook, "pending", 1)
    assert take_hook(store) == hook


def test_what_is_not_there_or_under_way_is_not_replayed(store: Store) -> None:
    """An unknown id, another job's, and one that a worker has taken."""
    job, other = cancelled(store), cancelled(store)
    [delivery] = store.hooks.deliveries(job.id)
    for job_id, delivery_id in [(job.id, "evt_none"), (other.id, delivery.hook.id), ("job_none", delivery.hook.id)]:
        with pytest.raises(NotFound):
            store.hooks.replay(job_id, delivery_id)
    assert take_hook(store)
    with pytest.raises(DeliveryUnderWay):
        store.hooks.replay(job.id, delivery.hook.id)


def test_tries_are_counted_by_what_came_of_them(store: Store) -> None:
    """Those that were reported too late are not."""
    assert store.hooks.outcomes() == {}
    for outcomes in (("retry", "retry", "delivered"), ("given_up", "retry"), ("delivered",)):
        store.jobs.cancel(submit(store, **with_hook()).id, CANCEL)
        hook = store.hooks.take(LONG_MS, per_host=9, per_owner=100)
        assert hook is not None
        for outcome in outcomes:
            store.hooks.tried(hook, outcome, "…", wait_ms=0)  # type: ignore[arg-type]  # they are outcomes
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
