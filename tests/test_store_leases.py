"""What a dead worker costs, and what is given back."""

from __future__ import annotations

from typing import Any

import pytest

from phi4.errors import Cancelled, StorageFull
from phi4.job import Unit
from phi4.store import Store
from phi4.store.keys import key
from tests.conftest import eventually
from tests.making_jobs import (
    DEATHS,
    LONG_MS,
    VISION,
    check_store,
    claim,
    complete,
    lose_lease,
    nothing_waits,
    plan,
    prepared,
    raw,
    read,
    reap,
    reap_until,
    refused,
    snapshot,
    submit,
)

CANCEL = Cancelled("Enough.")


@pytest.fixture(autouse=True)
def _consistent_store(store: Store) -> Any:
    """After every test here: counters equal what they count, owners have one turn each, and all keys have an end."""
    yield
    check_store(store)


# -- leases that run out


def test_a_lease_that_ran_out_puts_the_part_back_as_a_suspect(store: Store) -> None:
    """For real, by Redis' clock; the reaper says whose it was, and other parts are left alone."""
    job = prepared(store, 2)
    part, other = claim(store, lease_ms=50, worker="dying"), claim(store)
    reaped = reap_until(store, lambda r: r.put_back)
    assert reaped.put_back == [(job.id, part.name, "dying")]
    assert reaped.wake == [VISION]
    again = claim(store)
    assert (again.name, again.suspect, again.tries) == (part.name, True, 0)
    assert store.work.heartbeat([part.member, other.member], LONG_MS) == ["lost", "ok"]


def test_a_heartbeat_keeps_a_lease(store: Store) -> None:
    """A lease that was renewed in time does not run out."""
    prepared(store)
    part = claim(store, lease_ms=200)
    assert store.work.heartbeat([part.member], LONG_MS) == ["ok"]
    ends = raw(store).zscore(key("leases"), part.member)
    eventually(lambda: _redis_ms(store) > ends - LONG_MS + 250, what="the end of the first lease")
    assert reap(store).put_back == []
    complete(store, part)


def _redis_ms(store: Store) -> int:
    seconds, micros = raw(store).time()
    return int(seconds * 1000 + micros // 1000)


def test_a_part_that_dies_beside_others_is_not_blamed(store: Store) -> None:
    """However often; only what runs alone can be to blame."""
    job = prepared(store)
    for _ in range(DEATHS + 2):
        lose_lease(store, claim(store))
    assert complete(store, claim(store)) is not None
    assert read(store, job).failed == 0


def die_alone(store: Store, queue: str) -> Unit:
    """Claim a suspect, run it alone, and die."""
    unit = claim(store, queue)
    store.work.runs_alone(unit)
    lose_lease(store, unit)
    return unit


def test_a_part_that_dies_alone_three_times_fails_with_worker_lost(store: Store) -> None:
    """It does not get a fourth worker; the other parts go on, and the job is finished."""
    job = prepared(store, 3, window=1)
    lose_lease(store, claim(store))
    for deaths in range(1, DEATHS + 1):
        part = die_alone(store, VISION)
        assert snapshot(store, job)[1][0].state == ("failed" if deaths == DEATHS else "ready")
    assert part.suspect
    failed = snapshot(store, job)[1][0]
    assert (failed.error and failed.error["code"], read(store, job).failed) == ("worker_lost", 1)
    refused(store, part, job)
    finishes = [complete(store, claim(store)) for _ in range(2)]
    assert [f is not None for f in finishes] == [False, True]


def test_a_suspect_given_back_is_to_blame_only_when_it_runs_alone_again(store: Store) -> None:
    """What it did in its last attempt says nothing about the next."""
    job = prepared(store)
    lose_lease(store, claim(store))
    for _ in range(DEATHS + 1):
        alone = claim(store)
        store.work.runs_alone(alone)
        store.work.put_back(alone, counts=False)
        lose_lease(store, claim(store))
    assert read(store, job).failed == 0


def test_a_suspect_that_lives_is_done(store: Store) -> None:
    """Deaths so far are forgotten with the part's end."""
    job = prepared(store)
    lose_lease(store, claim(store))
    die_alone(store, VISION)
    part = claim(store)
    store.work.runs_alone(part)
    assert complete(store, part) is not None
    assert read(store, job).done == 1


def test_a_job_whose_last_part_kills_every_worker_is_finished_by_another(store: Store) -> None:
    """The finishing waits in the queue, for there is no worker at hand."""
    job = prepared(store)
    for _ in range(DEATHS):
        die_alone(store, VISION)
    finish = claim(store, "prepare")
    assert finish.name == "finish"
    store.work.end(finish, "failed", error={"code": "worker_lost"})
    assert read(store, job).status == "failed"
    assert nothing_waits(store)


@pytest.mark.parametrize("parts", [0, 1])
def test_a_preparation_that_kills_every_worker_fails_the_job(store: Store, parts: int) -> None:
    """At once when nothing runs; else what runs is stopped first."""
    job = submit(store)
    running = None
    if parts:
        prepare = claim(store, "prepare")
        plan(store, prepare, 1, sealed=False)
        running = claim(store)
        store.work.put_back(prepare, counts=False)
    for _ in range(DEATHS):
        die_alone(store, "prepare")
    if running:
        assert read(store, job).status == "in_progress"
        assert store.work.heartbeat([running.member], LONG_MS) == ["stop"]
        store.work.put_back(running, counts=False)
    found = read(store, job)
    assert (found.status, found.error and found.error["code"]) == ("failed", "worker_lost")
    assert nothing_waits(store)


@pytest.mark.parametrize("told", [False, True])
def test_a_finishing_that_kills_every_worker_ends_the_job(store: Store, told: bool) -> None:
    """As failed, or as it was told to end meanwhile."""
    job = prepared(store)
    finish = complete(store, claim(store))
    assert finish is not None
    lose_lease(store, finish)
    if told:
        store.jobs.cancel(job.id, CANCEL)
    for _ in range(DEATHS):
        die_alone(store, "prepare")
    found = read(store, job)
    code = found.error and found.error["code"]
    assert (found.status, code) == (("cancelled", "cancelled") if told else ("failed", "worker_lost"))
    assert nothing_waits(store)


def test_the_reaper_does_so_much_in_one_round(store: Store) -> None:
    """A crowd of fallen units is dealt with in several short steps."""
    prepared(store, 7)
    for _ in range(7):
        claim(store, lease_ms=1)
    eventually(lambda: _redis_ms(store) > max(s for _, s in raw(store).zrange(key("leases"), 0, -1, withscores=True)))
    rounds = [len(store.work.reap(max_deaths=DEATHS, limit=3).put_back) for _ in range(4)]
    assert rounds == [3, 3, 1, 0]


# -- the reaper's lock


def test_a_lock_has_one_holder(store: Store) -> None:
    """Its holder may keep it; another gets it when it has ended."""
    assert store.work.hold_lock("reaper", "a", 60)
    assert not store.work.hold_lock("reaper", "b", 60)
    assert store.work.hold_lock("reaper", "a", 0.05)
    assert store.work.hold_lock("other", "b", 60)
    eventually(lambda: store.work.hold_lock("reaper", "b", 60), what="the end of the lock")
    assert not store.work.hold_lock("reaper", "a", 60)


# -- a server that cannot write


def test_a_server_that_cannot_write_its_disk_is_full_storage(store: Store) -> None:
    """So that the API answers 503 and a worker's threads wait instead of dying."""
    script = "return redis.error_reply('MISCONF Redis is configured to save RDB snapshots, but cannot')"
    with pytest.raises(StorageFull, match="disk"):
        raw(store).eval(script, 0)


# -- put back


@pytest.mark.parametrize(("counts", "tries"), [(True, 1), (False, 0)])
def test_a_part_put_back_runs_again(store: Store, counts: bool, tries: int) -> None:
    """Its try counts when it failed, and not when its worker was told to go."""
    job = prepared(store)
    assert store.work.put_back(claim(store), counts=counts).wake == VISION
    assert store.work.waiting() == {VISION: 1}
    again = claim(store)
    assert (again.name, again.token, again.tries, again.suspect) == ("0", "2", tries, False)
    assert complete(store, again) is not None
    assert read(store, job).done == 1


def test_a_preparation_and_a_finishing_put_back_wait_with_the_side_worker(store: Store) -> None:
    """Both go where they came from."""
    submit(store)
    assert store.work.put_back(claim(store, "prepare"), counts=True).wake == "prepare"
    prepare = claim(store, "prepare")
    assert prepare.tries == 1
    plan(store, prepare, 1)
    finish = complete(store, claim(store))
    assert finish is not None
    assert store.work.put_back(finish, counts=False).wake == "prepare"
    assert claim(store, "prepare").name == "finish"
