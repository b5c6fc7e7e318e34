"""Jobs as the API sees them: submit once, bound the queue, list, find the place in the queue, delete."""

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
from tests.conftest import eventually
from tests.making_jobs import (
    LONG_MS,
    VISION,
    WORKER,
    check_store,
    claim,
    complete,
    finished,
    new_job,
    plan,
    prepared,
    read,
    reap,
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
    before = sorted(store.client.keys("*"))
    job = new_job("other")
    store.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(StorageFull):
            store.jobs.submit(job, most_waiting=BOUND)
    finally:
        store.client.config_set("maxmemory", 0)
    assert sorted(store.client.keys("*")) == before
    check_store(store)


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


# -- position


def test_the_position_counts_an_owners_earlier_jobs(store: Store) -> None:
    """First come, first served within an owner."""
    jobs = [submit(store) for _ in range(3)]
    assert [store.jobs.position(j.id) for j in jobs] == [0, 1, 2]
    claim(store, "prepare")
    assert [store.jobs.position(j.id) for j in jobs] == [None, 0, 1]


def test_the_position_is_the_number_of_claims_that_come_first(store: Store) -> None:
    """Owners take turns, and the position knows whose turn is next."""
    jobs = [submit(store, owner) for owner in "aaabccab"]
    told = {j.id: store.jobs.position(j.id) for j in jobs}
    order = [claim(store, "prepare").job.id for _ in jobs]
    assert told == {job_id: n for n, job_id in enumerate(order)}


def test_the_position_is_the_first_waiting_parts(store: Store) -> None:
    """Parts that run or are done are behind; held ones come later anyway."""
    first, second = prepared(store, 2, window=1), prepared(store, 3, "other")
    assert (store.jobs.position(first.id), store.jobs.position(second.id)) == (0, 1)
    part = claim(store)
    assert (store.jobs.position(first.id), store.jobs.position(second.id)) == (None, 0)
    complete(store, part)
    assert (store.jobs.position(first.id), store.jobs.position(second.id)) == (1, 0)


def test_the_position_stops_counting_at_the_most_asked_for(store: Store) -> None:
    """Never more than the bound, however much waits."""
    for n in range(6):
        submit(store, "abc"[n % 3])
    last = [submit(store, owner) for owner in "ad"]
    assert [store.jobs.position(j.id, most=2) for j in last] == [2, 2]


def test_nothing_that_waits_has_no_position(store: Store) -> None:
    """Ended, expired, deleted and unknown jobs."""
    done, gone, expired = finished(store), submit(store), finished(store, expires_in=0)
    store.jobs.delete(gone.id)
    reap_until(store, lambda r: expired.id in r.expired)
    assert [store.jobs.position(i) for i in (done.id, gone.id, expired.id, "job_none")] == [None] * 4


# -- delete


def keys_of(store: Store, job_id: str) -> list[str]:
    """Every key whose name, members, fields or value tell of a job."""
    found = []
    for name in store.client.keys("*"):
        kind = store.client.type(name)
        inside = {
            "zset": lambda n: store.client.zrange(n, 0, -1),
            "hash": lambda n: store.client.hgetall(n),
            "list": lambda n: store.client.lrange(n, 0, -1),
            "set": lambda n: store.client.smembers(n),
            "string": lambda n: store.client.get(n),
        }[kind](name)
        if job_id in f"{name} {inside}":
            found.append(name)
    return found


@pytest.mark.parametrize(
    "moment", ["queued", "preparing", "prepared", "running", "finishing", "finish waits", "cancelling", "completed"]
)
def test_a_deleted_job_leaves_no_key_behind(store: Store, moment: str) -> None:
    """At whatever moment; what still runs can report nothing, and its leases go with the next round of reaping."""
    job = new_job(
        webhook_url="https://a.example/h",
        webhook_events=("job.started", "job.completed", "job.cancelled"),
        cancel_after=600,
        window=2,
    )
    store.jobs.submit(job, most_waiting=BOUND, idempotency_key="k", fingerprint="f")
    if moment != "queued":
        prepare = claim(store, "prepare")
    if moment not in ("queued", "preparing"):
        plan(store, prepare, 3)
    if moment in ("running", "cancelling"):
        claim(store)
    if moment in ("finishing", "finish waits", "completed"):
        for _ in range(3):
            finish = complete(store, claim(store))
        assert finish is not None
    if moment == "finish waits":
        store.work.put_back(finish, counts=False)
    if moment == "completed":
        store.work.end(finish, "completed", result="r")
    if moment == "cancelling":
        store.jobs.cancel(job.id, Cancelled())
    assert keys_of(store, job.id)
    assert store.jobs.delete(job.id)
    assert set(keys_of(store, job.id)) <= {"phi4:leases"}
    store.client.pexpire("phi4:leases", 1)
    eventually(lambda: keys_of(store, job.id) == [], what="the end of the leases")
    assert store.work.waiting() == {}
    assert store.work.claim(VISION, WORKER, LONG_MS) is None
    assert store.work.claim("prepare", WORKER, LONG_MS) is None
    assert store.hooks.take(LONG_MS) is None
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
