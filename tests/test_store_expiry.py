"""Every job ends as a tombstone, and a tombstone holds nothing private."""

from __future__ import annotations

from typing import Any

import pytest

from phi4.job import NewJob
from phi4.store import Store
from phi4.store.keys import TOMBSTONE_MS, key
from tests.conftest import eventually
from tests.making_jobs import (
    LONG_MS,
    MOMENTS,
    check_store,
    claim,
    complete,
    prepared,
    raw,
    read,
    reap,
    reap_until,
    refused,
    submit,
    take_to,
)


@pytest.fixture(autouse=True)
def _consistent_store(store: Store) -> Any:
    """After every test here: counters equal what they count, owners have one turn each, and all keys have an end."""
    yield
    check_store(store)


TOLD_BY_A_TOMBSTONE = {"v", "id", "type", "owner", "status", "metadata", "attempts"}


def is_tombstone(store: Store, job: NewJob) -> None:
    """Check that a job is expired and that nothing of its input or result is left."""
    record = raw(store).hgetall(key("job", job.id))
    assert record["status"] == "expired"
    assert {name for name in record if not name.endswith("_ms")} == TOLD_BY_A_TOMBSTONE
    assert not raw(store).exists(key("units", job.id))
    assert 0 < raw(store).pttl(key("job", job.id)) <= TOMBSTONE_MS
    assert store.jobs.newest(job.owner, limit=9) == ([], False)
    assert read(store, job).inputs == ()
    check_store(store)


@pytest.mark.parametrize("moment", MOMENTS)
def test_every_job_ends_as_a_tombstone(store: Store, moment: str) -> None:
    """Whatever it was doing; its work is dropped, and who still works on it has lost it."""
    job = submit(store, expires_in=0, window=2, metadata={"a": "b"}, cancel_after=600)
    held = take_to(store, moment, job)
    before = read(store, job).status
    reaped = reap_until(store, lambda r: r.expired)
    assert reaped.expired == [job.id]
    is_tombstone(store, job)
    assert store.work.waiting() == {}
    if held:
        refused(store, held, job)
    assert read(store, job).metadata == {"a": "b"}
    assert store.jobs.ended() == {("ocr", before if before.is_terminal else "expired"): 1}
    assert reap(store).expired == []


def test_a_worker_has_one_round_to_let_go_of_an_expired_job(store: Store) -> None:
    """The first round tells it to stop, the second takes the job away; what was done is not put together any more."""
    job = prepared(store, 2, expires_in=0)
    done, part = claim(store), claim(store)
    complete(store, done)
    eventually(lambda: reap(store) and read(store, job).stop == "expired", what="the first round")
    assert store.work.heartbeat([part.member], LONG_MS) == ["stop"]
    store.work.put_back(part, counts=False)
    assert read(store, job).status == "expired"
    assert reap(store).expired == [job.id]
    is_tombstone(store, job)


def test_a_job_is_not_expired_before_its_time(store: Store) -> None:
    """An hour is an hour."""
    job = submit(store, expires_in=3_600)
    assert reap(store).expired == []
    assert read(store, job).status == "queued"
