"""A deleted job leaves nothing behind, and others alone."""

from __future__ import annotations

import pytest

from phi4.store import Store
from phi4.store.keys import key
from tests.conftest import eventually
from tests.making_jobs import (
    LONG_MS,
    MOMENTS,
    VISION,
    WORKER,
    check_store,
    claim,
    finished,
    new_job,
    prepared,
    raw,
    reap,
    reap_until,
    submit,
    take_hook,
    take_to,
)

BOUND = 1_000


def keys_of(store: Store, job_id: str) -> list[str]:
    """Every key whose name, members, fields or value tell of a job."""
    redis = raw(store)
    inside = {
        "zset": lambda name: redis.zrange(name, 0, -1),
        "hash": redis.hgetall,
        "list": lambda name: redis.lrange(name, 0, -1),
        "set": redis.smembers,
        "string": redis.get,
        "stream": redis.xrange,
    }
    return [name for name in redis.keys("*") if job_id in f"{name} {inside[redis.type(name)](name)}"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_deleted_job_leaves_no_key_behind(store: Store, moment: str) -> None:
    """At whatever moment; what still runs can report nothing, and its leases go when they run out."""
    events = ("job.started", "job.completed", "job.cancelled")
    job = new_job(webhook_url="https://a.example/h", webhook_events=events, cancel_after=600, window=2)
    store.jobs.submit(job, most_waiting=BOUND, idempotency_key="k", fingerprint="f")
    take_to(store, moment, job)
    assert keys_of(store, job.id)
    assert store.jobs.delete(job.id)
    assert set(keys_of(store, job.id)) <= {key("leases")}
    for member in raw(store).zrange(key("leases"), 0, -1):
        raw(store).zadd(key("leases"), {member: 1})
    assert reap(store).put_back == []
    assert keys_of(store, job.id) == []
    assert store.work.waiting() == {}
    assert store.work.claim(VISION, WORKER, LONG_MS) is None
    assert store.work.claim("prepare", WORKER, LONG_MS) is None
    assert take_hook(store) is None
    check_store(store)


def test_a_deleted_jobs_leases_go_with_the_reaper(store: Store) -> None:
    """A lease of a deleted job is neither renewed nor put back."""
    job = prepared(store)
    part = store.work.claim(VISION, WORKER, 1)
    assert part is not None
    store.jobs.delete(job.id)
    assert store.work.heartbeat([part.member], LONG_MS) == ["lost"]
    eventually(lambda: reap(store).put_back == [] and keys_of(store, job.id) == [], what="the end of the lease")


def test_deleting_one_job_leaves_the_others(store: Store) -> None:
    """Also those of the same owner in the same queue."""
    first, second, third = submit(store), submit(store), submit(store)
    assert store.jobs.delete(second.id)
    assert [j.id for j in store.jobs.newest("local", limit=9)[0]] == [third.id, first.id]
    assert [claim(store, "prepare").job.id for _ in range(2)] == [first.id, third.id]
    check_store(store)


def test_deleting_twice_tells_that_there_was_nothing(store: Store) -> None:
    """The second time changes nothing."""
    job = submit(store)
    assert [store.jobs.delete(job.id) for _ in range(2)] == [True, False]
    check_store(store)


def test_a_tombstone_can_be_deleted(store: Store) -> None:
    """After that the job is unknown, not expired."""
    job = finished(store, expires_in=0)
    reap_until(store, lambda r: job.id in r.expired)
    assert store.jobs.delete(job.id)
    assert keys_of(store, job.id) == []
    assert store.jobs.find(job.id) is None


def test_a_deleted_jobs_idempotency_key_is_free_again(store: Store) -> None:
    """It would else lead to a job that nobody finds."""
    first, second = new_job(), new_job()
    store.jobs.submit(first, most_waiting=BOUND, idempotency_key="k", fingerprint="f")
    store.jobs.delete(first.id)
    assert store.jobs.submit(second, most_waiting=BOUND, idempotency_key="k", fingerprint="f").job_id == second.id
    store.jobs.delete(first.id)
    assert store.jobs.submit(new_job(), most_waiting=BOUND, idempotency_key="k", fingerprint="f").replayed
