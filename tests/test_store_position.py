"""The place in the queue is the number of claims that come first."""

from __future__ import annotations

from phi4.store import Store
from tests.making_jobs import (
    claim,
    complete,
    finished,
    prepared,
    reap_until,
    submit,
)


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
