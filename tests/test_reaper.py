"""The reaper sends missing tickets, erases what is over, and leaves alone what is not."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import time_machine
from ulid import ULID

from phi4.blobs import Blobs
from phi4.job import new_id
from phi4.queue import Tickets, celery_app
from phi4.store import Batch, Store
from phi4.store.keys import key
from tests.conftest import eventually
from tests.making_jobs import VISION, claim, finished, prepared, raw, read, submit
from worker.reaper import Reaper

HOUR_S = 3_600
LONG_AGO_S = 1_700_000_000


@pytest.fixture
def tickets(valkey: str) -> Iterator[Tickets]:
    """Tickets on a real broker, in a database of their own."""
    app = celery_app(valkey.removesuffix("/0") + "/14")
    with app.connection_for_write() as connection:
        connection.default_channel.client.flushdb()
    yield Tickets(app)
    app.close()


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    """An empty blob store."""
    return Blobs(f"file://{tmp_path}/blobs")


@pytest.fixture
def reaper(store: Store, blobs: Blobs, tickets: Tickets) -> Reaper:
    """Reaps when told, or all the time after `start`."""
    return make(store, blobs, tickets)


def make(store: Store, blobs: Blobs, tickets: Tickets, name: str = "w1") -> Reaper:
    """One side worker's reaper."""
    return Reaper(store, blobs, tickets, worker=name, every=0.02, max_deaths=3)


def rounds_until(reaper: Reaper, holds: Callable[[], bool]) -> None:
    """Let the reaper do its rounds until something is so."""

    def look() -> bool:
        reaper.round()
        return holds()

    eventually(look, what="what the reaper has to do")


def sent(tickets: Tickets, queue: str) -> int:
    """How many tickets lie in a queue."""
    return 1_000 - tickets.missing(queue, 1_000)


def test_missing_tickets_are_sent(store: Store, reaper: Reaper, tickets: Tickets) -> None:
    """As many as units wait, and no more in the next round; parts outside their window need none."""
    prepared(store, 5, window=3)
    for _ in range(2):
        submit(store)
    reaper.round()
    reaper.round()
    assert (sent(tickets, "prepare"), sent(tickets, VISION), sent(tickets, "webhooks")) == (2, 3, 0)
    tickets.wake(VISION, 2)
    reaper.round()
    assert sent(tickets, VISION) == 5


def test_an_expired_jobs_blobs_are_erased(store: Store, reaper: Reaper, blobs: Blobs) -> None:
    """Its input and its result; the job says that it expired."""
    job, other = finished(store, expires_in=0), finished(store)
    for one in (job, other):
        blobs.put(f"{one.id}/input-0", b"private")
        blobs.put(f"{one.id}/result.json", b"private")
    rounds_until(reaper, lambda: read(store, job).status == "expired")
    assert [name for name, _ in blobs.folders()] == [other.id]


def test_more_than_one_round_may_do_is_done_at_once(store: Store, reaper: Reaper) -> None:
    """A round says so; else jobs that expire faster than a hundred a round would pile up."""
    jobs = [finished(store, expires_in=0) for _ in range(101)]

    assert (reaper.round(), reaper.round()) == (True, False)
    assert {read(store, job).status for job in jobs} == {"expired"}


def make_old(blobs: Blobs, tmp_path: Path, job_id: str) -> None:
    """Store a blob a long time ago."""
    blobs.put(f"{job_id}/input-0", b"private")
    [folder] = tmp_path.glob(f"blobs/*/{job_id}")
    os.utime(folder, (LONG_AGO_S, LONG_AGO_S))


def old_id(seconds: float = LONG_AGO_S) -> str:
    """An id made at some time."""
    return f"job_{str(ULID.from_timestamp(float(seconds))).lower()}"


def test_the_sweep_erases_what_no_job_has(store: Store, reaper: Reaper, blobs: Blobs, tmp_path: Path) -> None:
    """Blobs of jobs that are there stay, and so do those of a request that is still being read."""
    kept = submit(store, id=old_id())
    for job_id in (kept.id, old_id(LONG_AGO_S + 1), old_id(LONG_AGO_S + 2), "no-job-at-all"):
        make_old(blobs, tmp_path, job_id)
    young = old_id(LONG_AGO_S + 3)
    blobs.put(f"{young}/input-0", b"private")
    assert reaper.sweep() == 3
    assert {name for name, _ in blobs.folders()} == {kept.id, young}


def test_the_sweep_spares_what_an_open_batch_reads(store: Store, reaper: Reaper, blobs: Blobs, tmp_path: Path) -> None:
    """Its input file may have run out meanwhile; the bytes of others that did go."""
    read_on, other = (old_id(LONG_AGO_S + n).replace("job_", "file_") for n in range(2))
    for file_id in (read_on, other):
        make_old(blobs, tmp_path, file_id)
    now = store.now_ms()
    batch = Batch(new_id("batch", now), "local", "", "/v1/chat/completions", read_on, "{}", now, now, HOUR_S)
    store.batches.add(batch)
    assert (reaper.sweep(), [name for name, _ in blobs.folders()]) == (1, [read_on])
    store.batches.close(batch)
    assert reaper.sweep() == 1


def test_the_sweep_erases_what_an_expired_job_left(store: Store, reaper: Reaper, blobs: Blobs, tmp_path: Path) -> None:
    """A worker that came too late may have stored a result after the job was erased."""
    job = submit(store, id=old_id(), expires_in=0)
    rounds_until(reaper, lambda: read(store, job).status == "expired")
    rounds_until(reaper, lambda: not read(store, job).params)
    make_old(blobs, tmp_path, job.id)
    assert reaper.sweep() == 1


def test_the_sweep_spares_the_young_where_folders_have_no_age(store: Store, tickets: Tickets) -> None:
    """On an object store the id tells it."""
    blobs = Blobs(f"memory://{uuid.uuid4()}")
    young, old = submit(store).id, old_id()
    store.jobs.delete(young)
    for job_id in (young, old):
        blobs.put(f"{job_id}/input-0", b"private")
    assert make(store, blobs, tickets).sweep() == 1
    assert [name for name, _ in blobs.folders()] == [young]


def test_the_sweep_spares_the_young_whatever_this_machines_clock_says(
    store: Store, reaper: Reaper, blobs: Blobs
) -> None:
    """A request that is being read would else lose its files to a worker whose clock is ahead."""
    for job_id in (new_id("job", store.now_ms()), "no-job-at-all"):
        blobs.put(f"{job_id}/input-0", b"private")
    with time_machine.travel(time.time() + 2 * 3_600):
        assert reaper.sweep() == 0


def test_one_of_two_reapers_is_at_work(store: Store, blobs: Blobs, tickets: Tickets) -> None:
    """The lock has one holder, and its work is done."""
    both = [make(store, blobs, tickets, name) for name in ("w1", "w2")]
    prepared(store)
    part = claim(store)
    raw(store).zadd(key("leases"), {part.member: 1})
    for one in both:
        one.start()
    try:
        eventually(lambda: sent(tickets, VISION) == 1, what="the part's new ticket")
        assert raw(store).get(key("lock", "reaper")) in ("w1", "w2")
    finally:
        for one in both:
            one.stop()
    assert claim(store).suspect


def test_an_unforeseen_error_does_not_end_the_reaping(store: Store, reaper: Reaper, tickets: Tickets) -> None:
    """Here a counter that is no number; afterwards the work goes on."""
    submit(store)
    raw(store).hset(key("backlog"), "prepare", "many")
    reaper.start()
    try:
        eventually(lambda: raw(store).exists(key("lock", "reaper")), what="the first round")
        raw(store).hset(key("backlog"), "prepare", 1)
        eventually(lambda: sent(tickets, "prepare") == 1, what="the ticket")
    finally:
        reaper.stop()


def test_a_long_sweep_holds_no_round_up(store: Store, tickets: Tickets, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of hundreds of thousands of folders each is looked at."""
    began, end = threading.Event(), threading.Event()

    def folders(_: Blobs) -> Iterator[tuple[str, float]]:
        began.set()
        end.wait(30)
        return iter(())

    monkeypatch.setattr("worker.reaper._SWEEP_S", 0.01)
    monkeypatch.setattr(Blobs, "folders", folders)
    swept = make(store, Blobs("memory://none"), tickets)
    swept.start()
    try:
        assert began.wait(10)
        submit(store)
        eventually(lambda: sent(tickets, "prepare") == 1, what="the ticket")
        assert not end.is_set()
    finally:
        end.set()
        swept.stop()
