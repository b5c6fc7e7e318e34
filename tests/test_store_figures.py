"""What the store tells of itself for monitoring: how long work has been waiting, webhooks that are due, memory."""

from __future__ import annotations

import time

from phi4.store import Store
from phi4.store.keys import key
from tests.making_jobs import DONE, LONG_MS, VISION, WORKER, claim, new_job, prepared, raw, submit


def test_an_empty_store_has_nothing_waiting(store: Store) -> None:
    """Every queue is named, so that a figure falls to zero instead of vanishing."""
    assert set(store.work.oldest().values()) == {0.0}
    assert {"prepare", VISION} <= set(store.work.oldest())
    assert store.hooks.waiting() == {"due": 0, "later": 0, "sent": 0}


def test_a_queue_is_as_old_as_its_oldest_unit(store: Store) -> None:
    """Of any owner; what was taken counts no more, and what is put back begins anew."""
    first = submit(store, "a")
    time.sleep(0.05)
    submit(store, "b")
    age = store.work.oldest()["prepare"]
    assert age >= 0.05
    taken = claim(store, "prepare")
    assert taken.job.id == first.id
    assert store.work.oldest()["prepare"] < age
    store.work.put_back(taken, counts=False)
    assert store.work.oldest()["prepare"] < age + 0.05


def test_finishings_that_go_first_hide_no_older_work(store: Store) -> None:
    """A queue whose head is always new would look healthy while all else in it waits."""
    prepared(store, 1)
    submit(store)
    time.sleep(0.05)
    store.work.complete(claim(store), DONE, WORKER, LONG_MS, finishes=False)

    assert store.work.oldest()["prepare"] >= 0.05
    assert claim(store, "prepare").name == "finish"
    assert claim(store, "prepare").name == "prepare"


def test_a_part_waits_since_it_entered_its_queue(store: Store) -> None:
    """Not since its job was sent: a long document is not late because it is long."""
    job = prepared(store, 2)
    raw(store).hset(key("job", job.id), "created_ms", 1)

    assert store.work.oldest()[VISION] < 60
    raw(store).hdel(key("units", job.id), "0.ready_ms")
    assert store.work.oldest()[VISION] > 1_000_000, "as an older version wrote it: since the job"


def test_webhooks_are_counted_by_when_they_are_due(store: Store) -> None:
    """Due now, under way, or waiting for their next try."""
    for host in ("a", "a", "b"):
        job = new_job(webhook_url=f"http://{host}.test/hook", webhook_events=("job.failed",))
        store.jobs.submit(job, most_waiting=100)
        store.work.end(claim(store, "prepare"), "failed", error={"code": "x"})

    assert store.hooks.waiting() == {"due": 3, "later": 0, "sent": 0}
    first = store.hooks.take(60_000, per_host=4, per_owner=100)
    assert first is not None
    assert store.hooks.waiting() == {"due": 2, "later": 0, "sent": 1}
    store.hooks.tried(first, "retry", "500", wait_ms=60_000)
    assert store.hooks.waiting() == {"due": 2, "later": 1, "sent": 0}


def test_memory_has_a_limit(store: Store) -> None:
    """`maxmemory`, or the machine's memory when none is set."""
    used, most = store.memory()
    assert 0 < used < most
    raw(store).config_set("maxmemory", "1gb")
    try:
        assert store.memory()[1] == 1 << 30
    finally:
        raw(store).config_set("maxmemory", "0")
