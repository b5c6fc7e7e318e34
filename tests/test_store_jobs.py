"""Jobs as the API sees them: submit once, bound the queue, list, count."""

from __future__ import annotations

import threading

import pytest

from phi4.errors import (
    Cancelled,
    IdempotencyConflict,
    IdempotencyMismatch,
    NotFound,
    QueueFull,
    StorageFull,
    StoreUnavailable,
)
from phi4.job import Status
from phi4.store import Store
from phi4.store.work import Outcome
from tests.making_jobs import (
    LONG_MS,
    WORKER,
    check_store,
    claim,
    complete,
    finished,
    new_job,
    prepared,
    raw,
    read,
    reap_until,
    submit,
)

BOUND = 1_000


# -- submit


def test_a_submitted_job_is_queued_as_it_was_sent(store: Store) -> None:
    """What was submitted is what is read, and its preparation waits."""
    job = submit(store, metadata={"kind": "ä|b"}, cancel_after=60, webhook_url="https://a.example/h")
    found = store.jobs.get(job.id, "local")
    assert (found.status, found.owner, found.type, found.attempts) == (Status.QUEUED, "local", "ocr", 1)
    assert (found.params, found.inputs, found.metadata) == (job.params, job.inputs, job.metadata)
    assert found.webhook_url == "https://a.example/h"
    assert found.expires_ms - found.created_ms == 86_400_000
    assert store.work.waiting() == {"prepare": 1}
    check_store(store)


def test_the_same_call_sent_twice_makes_one_job(store: Store) -> None:
    """A client library that repeats a call whose answer got lost queues nothing twice."""
    job = new_job()
    again = [store.jobs.submit(job, most_waiting=BOUND) for _ in range(2)]
    assert [(s.job_id, s.replayed) for s in again] == [(job.id, False)] * 2
    assert store.work.waiting() == {"prepare": 1}
    claim(store, "prepare")
    store.jobs.submit(job, most_waiting=BOUND)
    assert store.work.claim("prepare", WORKER, LONG_MS) is None
    check_store(store)


def test_the_same_call_sent_twice_is_answered_alike_when_the_queue_is_full_by_then(store: Store) -> None:
    """The bound refuses new jobs only."""
    job = new_job()
    store.jobs.submit(job, most_waiting=1)
    assert store.jobs.submit(job, most_waiting=1).job_id == job.id


def test_the_same_call_with_an_idempotency_key_sent_twice_is_no_replay(store: Store) -> None:
    """The job that a repeated call finds under its key is its own."""
    job = new_job()
    for _ in range(2):
        made = store.jobs.submit(job, most_waiting=BOUND, idempotency_key="k", fingerprint="f")
        assert (made.job_id, made.replayed) == (job.id, False)


def test_more_than_the_bound_is_refused_and_leaves_nothing(store: Store) -> None:
    """Waiting preparations and parts, also those outside their window, count against the bound."""
    prepared(store, parts=4, window=2)
    refused = new_job("other")
    with pytest.raises(QueueFull):
        store.jobs.submit(refused, most_waiting=4)
    assert store.jobs.find(refused.id) is None
    assert store.jobs.newest("other", limit=5) == ([], False)
    store.jobs.submit(refused, most_waiting=5)
    check_store(store)


def test_a_store_out_of_memory_refuses_a_job_and_keeps_nothing_of_it(store: Store) -> None:
    """Redis with `noeviction` and full: `StorageFull`, and not half a job."""
    submit(store)
    before = sorted(raw(store).keys("*"))
    job = new_job("other")
    raw(store).config_set("maxmemory", 1)
    try:
        with pytest.raises(StorageFull):
            store.jobs.submit(job, most_waiting=BOUND)
    finally:
        raw(store).config_set("maxmemory", 0)
    assert sorted(raw(store).keys("*")) == before
    check_store(store)


def test_jobs_that_a_list_leaves_out_are_not_read_whole(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversation may be a megabyte; of others than the wanted ones status and type are enough."""
    jobs = [submit(store) for _ in range(3)]
    store.jobs.cancel(jobs[1].id, Cancelled("By its owner."))
    read, find = [], store.jobs.find
    monkeypatch.setattr(type(store.jobs), "find", lambda _, job_id: read.append(job_id) or find(job_id))

    found, more = store.jobs.newest("local", limit=5, status="cancelled")

    assert ([job.id for job in found], more, read) == ([jobs[1].id], False, [jobs[1].id])


def test_a_store_that_is_away_is_named(store: Store) -> None:
    """A refused connection is `StoreUnavailable`, not the client library's error."""
    with pytest.raises(StoreUnavailable):
        Store.at("redis://127.0.0.1:1/0")


# -- idempotency


def test_a_key_used_again_with_the_same_request_gives_the_first_job(store: Store) -> None:
    """A replay queues nothing."""
    first, second = new_job(), new_job()
    store.jobs.submit(first, most_waiting=BOUND, idempotency_key="k", fingerprint="same")
    made = store.jobs.submit(second, most_waiting=BOUND, idempotency_key="k", fingerprint="same")
    assert (made.job_id, made.replayed) == (first.id, True)
    assert store.jobs.find(second.id) is None
    assert store.work.waiting() == {"prepare": 1}


def test_a_key_without_a_fingerprint_replays_too(store: Store) -> None:
    """An empty fingerprint is equal to itself."""
    first = new_job()
    store.jobs.submit(first, most_waiting=BOUND, idempotency_key="k")
    assert store.jobs.submit(new_job(), most_waiting=BOUND, idempotency_key="k").job_id == first.id


def test_a_key_used_again_with_another_request_is_a_mismatch(store: Store) -> None:
    """The second request is refused and leaves nothing."""
    store.jobs.submit(new_job(), most_waiting=BOUND, idempotency_key="k", fingerprint="one")
    other = new_job()
    with pytest.raises(IdempotencyMismatch):
        store.jobs.submit(other, most_waiting=BOUND, idempotency_key="k", fingerprint="two")
    assert store.jobs.find(other.id) is None


def test_a_replay_is_answered_also_when_the_queue_is_full(store: Store) -> None:
    """The bound refuses new jobs only."""
    first = new_job()
    store.jobs.submit(first, most_waiting=1, idempotency_key="k", fingerprint="f")
    assert store.jobs.submit(new_job(), most_waiting=1, idempotency_key="k", fingerprint="f").job_id == first.id


@pytest.mark.parametrize("value", ["k", "", " ", "a|b:{c}*", "\n", "ключ", "x" * 255])
def test_keys_belong_to_their_owner(store: Store, value: str) -> None:
    """Two owners may use the same key, whatever it holds; no key at all never replays."""
    made = [
        store.jobs.submit(new_job(owner), most_waiting=BOUND, idempotency_key=value, fingerprint="f")
        for owner in ("a", "b", "a")
    ]
    assert [m.replayed for m in made] == [False, False, value != ""]


def test_a_key_is_locked_while_its_first_request_is_read(store: Store) -> None:
    """A second request in that time is refused; after the first failed, the next may try."""
    assert store.jobs.lock_idempotency("local", "k", "one") is None
    with pytest.raises(IdempotencyConflict):
        store.jobs.lock_idempotency("local", "k", "two")
    store.jobs.unlock_idempotency("local", "k", "two")
    with pytest.raises(IdempotencyConflict):
        store.jobs.lock_idempotency("local", "k", "two")
    check_store(store)
    store.jobs.unlock_idempotency("local", "k", "one")
    assert store.jobs.lock_idempotency("local", "k", "two") is None


def test_a_lock_that_is_asked_for_twice_by_one_request_is_its_own(store: Store) -> None:
    """The client library sends a command again when its answer got lost."""
    assert store.jobs.lock_idempotency("local", "k", "one") is None
    assert store.jobs.lock_idempotency("local", "k", "one") is None


def test_a_lock_becomes_the_jobs_key_and_stays(store: Store) -> None:
    """Unlocking after success takes nothing away."""
    job = new_job()
    store.jobs.lock_idempotency("local", "k", "one")
    store.jobs.submit(job, most_waiting=BOUND, idempotency_key="k", fingerprint="f")
    store.jobs.unlock_idempotency("local", "k", "one")
    assert store.jobs.lock_idempotency("local", "k", "two") == job.id
    check_store(store)


def test_many_requests_with_one_key_at_once_make_one_job(store: Store) -> None:
    """The key and the job are written in one step, so races have one winner."""
    made: list[str] = []

    def send() -> None:
        made.append(store.jobs.submit(new_job(), most_waiting=BOUND, idempotency_key="k", fingerprint="f").job_id)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(set(made))) == (8, 1)
    assert store.work.waiting() == {"prepare": 1}


# -- read and list


def test_another_owners_job_is_not_found(store: Store) -> None:
    """The answer is the same as for a job that never was."""
    job = submit(store, "a")
    for job_id, owner in ((job.id, "b"), ("job_none", "a"), ("", "a")):
        with pytest.raises(NotFound, match="There is no job"):
            store.jobs.get(job_id, owner)


def test_a_list_is_newest_first_and_walked_by_cursor(store: Store) -> None:
    """Pages follow each other without gaps or repeats; the last says that there is no more."""
    ids = [submit(store).id for _ in range(7)]
    submit(store, "other")
    seen, after, more = [], "", True
    while more:
        page, more = store.jobs.newest("local", limit=3, after=after)
        seen += [j.id for j in page]
        after = page[-1].id
    assert seen == sorted(ids, reverse=True)


@pytest.mark.parametrize("limit", [1, 6, 7, 8])
def test_a_list_tells_whether_there_is_more(store: Store, limit: int) -> None:
    """`more` is true only when a further page would hold something."""
    for _ in range(7):
        submit(store)
    page, more = store.jobs.newest("local", limit=limit)
    assert (len(page), more) == (min(limit, 7), limit < 7)


def test_a_list_of_one_status_or_type_skips_the_others(store: Store) -> None:
    """The cursor and `more` count what was asked for only."""
    done = [finished(store).id for _ in range(3)]
    waiting = [submit(store, type="vqa", params={"question": "?"}).id for _ in range(2)]
    page, more = store.jobs.newest("local", limit=2, status="completed")
    assert ([j.id for j in page], more) == (sorted(done, reverse=True)[:2], True)
    page, more = store.jobs.newest("local", limit=2, after=page[-1].id, status="completed")
    assert ([j.id for j in page], more) == ([min(done)], False)
    page, more = store.jobs.newest("local", limit=2, type="vqa")
    assert ([j.id for j in page], more) == (sorted(waiting, reverse=True), False)


def test_a_list_reads_on_past_many_jobs_that_do_not_fit(store: Store) -> None:
    """More jobs than one reading of the index holds."""
    oldest = submit(store, type="vqa", params={"question": "?"})
    for _ in range(205):
        submit(store)
    page, more = store.jobs.newest("local", limit=2, type="vqa")
    assert ([j.id for j in page], more) == ([oldest.id], False)


@pytest.mark.parametrize("after", ["job_0", "zzz", "\x00", "[", "(", "+", "-", "\xff"])
def test_a_cursor_that_is_no_job_is_just_a_place_in_the_order(store: Store, after: str) -> None:
    """A stranger's cursor breaks nothing."""
    job = submit(store)
    page, more = store.jobs.newest("local", limit=5, after=after)
    assert ([j.id for j in page], more) == ([job.id] if after > job.id else [], False)


# -- counting


def test_ended_jobs_are_counted_once_by_type_and_status(store: Store) -> None:
    """For metrics; expiry after the end is no second end."""
    finished(store)
    finished(store, expires_in=0)
    store.jobs.cancel(submit(store, type="vqa", params={"question": "?"}).id, Cancelled())
    reap_until(store, lambda r: r.expired)
    assert store.jobs.ended() == {("ocr", "completed"): 2, ("vqa", "cancelled"): 1}


def test_usage_adds_up_over_parts_also_in_fractions(store: Store) -> None:
    """Seconds of sound are not whole numbers."""
    job = prepared(store, 3)
    for seconds in (0.1, 0.2, 29.755):
        complete(store, claim(store), Outcome(out="o", usage={"seconds": seconds, "completion_tokens": 7}))
    assert read(store, job).usage == {"seconds": 30.055, "completion_tokens": 21.0}
    check_store(store)
