"""Work as workers see it: who gets what, who may report, what a dead worker costs, and how a job ends."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from phi4.errors import Cancelled, LeaseLost, StorageFull, WorkerLost
from phi4.job import Job, NewJob, Part, Status, Unit, error_json
from phi4.store import Store
from phi4.store.keys import TOMBSTONE_MS, key
from phi4.store.work import Outcome
from tests.conftest import eventually
from tests.making_jobs import (
    DEATHS,
    DONE,
    FAILED,
    LONG_MS,
    VISION,
    WORKER,
    check_store,
    claim,
    complete,
    finished,
    lose_lease,
    plan,
    prepared,
    read,
    reap,
    reap_until,
    submit,
)

CANCEL = Cancelled("Enough.")


@pytest.fixture(autouse=True)
def _consistent_store(store: Store) -> Any:
    """After every test here: counters equal what they count, owners have one turn each, and all keys have an end."""
    yield
    check_store(store)


def nothing_waits(store: Store) -> bool:
    """Whether every queue and its counter is empty."""
    claimed = [store.work.claim(queue, WORKER, LONG_MS) for queue in ("prepare", VISION)]
    return claimed == [None, None] and store.work.waiting() == {}


def snapshot(store: Store, job: NewJob) -> tuple[Job, list[Part]]:
    """All that can be read of a job."""
    found = read(store, job)
    return found, store.jobs.parts(found)


# -- claim: who is next


def test_a_claim_hands_over_the_job_and_the_part(store: Store) -> None:
    """The worker needs no second look, and who starts a job's first part can tell by the status before."""
    job = prepared(store, 2, metadata={"a": "b"}, traceparent="00-aa-bb-01")
    part = claim(store)
    assert (part.job.id, part.name, part.tries, part.suspect) == (job.id, "0", 0, False)
    assert part.spec == {"input": 0, "page": 1}
    assert (part.job.metadata, part.job.trace_id, part.job.status) == ({"a": "b"}, "aa", "queued")
    assert (read(store, job).status, claim(store).job.status) == ("in_progress", "in_progress")


def test_owners_take_turns(store: Store) -> None:
    """A thousand jobs of one owner hold up another's by one."""
    for owner in "aaaabbc":
        submit(store, owner)
    assert [claim(store, "prepare").job.owner for _ in range(7)] == list("abcabaa")


def test_an_owner_who_comes_late_waits_for_one_turn_of_each(store: Store) -> None:
    """The ring goes on from where it is."""
    for owner in "aaabbb":
        submit(store, owner)
    assert claim(store, "prepare").job.owner == "a"
    submit(store, "c")
    assert [claim(store, "prepare").job.owner for _ in range(6)] == list("bacbab")


def test_work_of_one_owner_goes_in_order_of_arrival(store: Store) -> None:
    """Parts of an earlier job go first, in the order of pages."""
    first, second = prepared(store, 2), prepared(store, 2)
    order = [(u.job.id, u.name) for u in (claim(store) for _ in range(4))]
    assert order == [(first.id, "0"), (first.id, "1"), (second.id, "0"), (second.id, "1")]


def test_queues_do_not_mix(store: Store) -> None:
    """Types and priorities wait apart."""
    job = prepared(store, priority="high", type="asr", params={})
    assert store.work.claim(VISION, WORKER, LONG_MS) is None
    assert claim(store, "infer.speech.high").job.id == job.id


def test_an_empty_queue_gives_nothing(store: Store) -> None:
    """Not an error; tickets may be doubled or late."""
    assert store.work.claim("prepare", WORKER, LONG_MS) is None
    assert store.work.claim("no.such.queue", WORKER, LONG_MS) is None


def test_a_record_of_a_newer_version_stays_in_the_queue(store: Store) -> None:
    """A worker of today leaves it to one of tomorrow, and does the work behind it."""
    newer, older = submit(store), submit(store)
    store.client.hset(key("job", newer.id), "v", 2)
    claims = [store.work.claim("prepare", WORKER, LONG_MS) for _ in range(4)]
    assert [c.job.id for c in claims if c] == [older.id]
    assert store.work.waiting() == {"prepare": 1}
    store.client.hset(key("job", newer.id), "v", 1)
    assert claim(store, "prepare").job.id == newer.id


# -- the window


@pytest.mark.parametrize("window", [1, 3, 7, 50])
def test_no_more_parts_than_the_window_wait_or_run(store: Store, window: int) -> None:
    """Each part that ends lets the next one in, until all are done."""
    job = submit(store, window=window)
    let_in, _ = plan(store, claim(store, "prepare"), 8)
    running: list[Unit] = []
    assert let_in == min(window, 8)
    while unit := store.work.claim(VISION, WORKER, LONG_MS):
        running.append(unit)
        assert len(running) <= window
        check_store(store)
        if len(running) == min(window, 8):
            complete(store, running.pop(0), FAILED if len(running) % 2 else DONE)
            check_store(store)
    for unit in running:
        complete(store, unit)
    assert (read(store, job).done + read(store, job).failed, store.work.waiting()) == (8, {})


def test_parts_are_let_in_while_preparation_goes_on(store: Store) -> None:
    """The first pages are read before the last one is made; the job is not finished before it is sealed."""
    job = submit(store, window=2)
    prepare = claim(store, "prepare")
    assert plan(store, prepare, 1, sealed=False) == (1, None)
    assert complete(store, claim(store)) is None
    assert (read(store, job).status, read(store, job).prepared_ms) == ("in_progress", 0)
    assert plan(store, prepare, 1, first=1) == (1, None)
    assert complete(store, claim(store)) is not None


def test_a_preparation_run_again_leaves_known_parts_as_they_are(store: Store) -> None:
    """What was answered before the worker died is not asked again."""
    job = submit(store)
    prepare = claim(store, "prepare")
    plan(store, prepare, 2, sealed=False)
    complete(store, claim(store))
    lose_lease(store, prepare)
    again = claim(store, "prepare")
    plan(store, again, 3)
    assert [p.state for p in snapshot(store, job)[1]] == ["done", "ready", "ready"]
    with pytest.raises(LeaseLost):
        plan(store, prepare, 9)


def test_a_job_without_parts_is_finished_by_its_preparation(store: Store) -> None:
    """There is nothing to wait for."""
    submit(store)
    let_in, finish = plan(store, claim(store, "prepare"), 0)
    assert (let_in, finish is not None) == (0, True)


# -- fencing: who may report


def end_of(store: Store, unit: Unit) -> list[Any]:
    """Every way to report on a unit, as calls."""
    return [
        lambda: store.work.complete(unit, DONE, WORKER, LONG_MS),
        lambda: store.work.complete(unit, FAILED, WORKER, LONG_MS),
        lambda: store.work.put_back(unit, counts=True),
        lambda: store.work.put_back(unit, counts=False),
        lambda: store.work.end(unit, "completed", result="other"),
        lambda: store.work.end(unit, "failed", error=error_json(WorkerLost(), "run")),
        lambda: store.work.runs_alone(unit),
        lambda: plan(store, unit, 3),
    ]


def refused(store: Store, unit: Unit, job: NewJob) -> None:
    """Check that no report on a unit is taken, and that none changes anything."""
    before = snapshot(store, job) if store.jobs.find(job.id) else None
    for report in end_of(store, unit):
        with pytest.raises(LeaseLost):
            report()
    assert store.work.heartbeat([unit.member], LONG_MS) == ["lost"]
    assert (snapshot(store, job) if before else store.jobs.find(job.id)) == before
    check_store(store)


def test_a_report_is_taken_once(store: Store) -> None:
    """A duplicate changes nothing, whatever it says."""
    job = prepared(store, 2)
    part = claim(store)
    complete(store, part)
    refused(store, part, job)


def test_a_late_report_is_not_taken(store: Store) -> None:
    """The part belongs to its next attempt: while that waits, while it runs, and after it reported."""
    job = prepared(store, 2)
    late = claim(store)
    lose_lease(store, late)
    refused(store, late, job)
    claim(store)
    again = claim(store)
    assert (again.name, again.token) == (late.name, "2")
    refused(store, late, job)
    complete(store, again)
    refused(store, late, job)


@pytest.mark.parametrize("end", ["cancelled", "deleted", "expired"])
def test_a_report_for_a_job_that_is_over_is_not_taken(store: Store, end: str) -> None:
    """No result appears after the end."""
    job = prepared(store, expires_in=0 if end == "expired" else 60)
    part = claim(store)
    if end == "cancelled":
        store.jobs.cancel(job.id, CANCEL)
        store.work.put_back(part, counts=False)
    elif end == "deleted":
        store.jobs.delete(job.id)
    else:
        reap_until(store, lambda r: job.id in r.expired)
    refused(store, part, job)


def test_a_finishing_that_was_lost_cannot_end_the_job(store: Store) -> None:
    """Only the newest attempt's result counts."""
    job = prepared(store)
    late = complete(store, claim(store))
    assert late is not None
    lose_lease(store, late)
    refused(store, late, job)
    store.work.end(claim(store, "prepare"), "completed", result="second")
    refused(store, late, job)
    assert read(store, job).result == "second"


def test_a_unit_reports_as_what_it_is_only(store: Store) -> None:
    """A preparation's token opens no part, though both are the first of their kind."""
    job = submit(store)
    prepare = claim(store, "prepare")
    plan(store, prepare, 2)
    claim(store)
    forged = Unit(prepare.job, "1", prepare.token)
    refused(store, forged, job)
    refused(store, prepare, job)


def test_a_number_that_redis_refuses_changes_nothing(store: Store) -> None:
    """A report fails whole, and can be made again."""
    job = prepared(store)
    part = claim(store)
    before = snapshot(store, job)
    with pytest.raises(Exception, match="float"):
        store.work.complete(part, Outcome(out="o", usage={"seconds": float("nan")}), WORKER, LONG_MS)
    assert snapshot(store, job) == before
    assert complete(store, part) is not None


# -- the last part


def test_the_last_part_hands_out_the_finishing(store: Store) -> None:
    """Once, to the report that came last, also when all parts failed."""
    job = prepared(store, 3)
    parts = [claim(store) for _ in range(3)]
    assert [complete(store, p, FAILED) is not None for p in parts] == [False, False, True]
    assert read(store, job).status == "in_progress"
    assert nothing_waits(store)


def test_reports_that_race_hand_out_the_finishing_once(store: Store) -> None:
    """Many threads report the last parts of many jobs at once, each part twice."""
    jobs = [prepared(store, 4) for _ in range(10)]
    parts = [claim(store) for _ in range(40)]
    handed: list[str] = []
    lost: list[str] = []
    start = threading.Barrier(8)

    def report(mine: list[Unit]) -> None:
        start.wait()
        for part in mine:
            try:
                if finish := complete(store, part):
                    handed.append(finish.job.id)
            except LeaseLost:
                lost.append(part.member)

    threads = [threading.Thread(target=report, args=(parts[n % 4 :: 4],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(handed) == sorted(j.id for j in jobs)
    assert len(lost) == 40


def test_claims_that_race_take_each_part_once(store: Store) -> None:
    """No part is run twice, and none is left."""
    for _ in range(5):
        prepared(store, 20)
    taken: list[str] = []

    def take() -> None:
        while unit := store.work.claim(VISION, WORKER, LONG_MS):
            taken.append(unit.member)

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(taken), len(set(taken))) == (100, 100)


def test_a_finished_job_has_its_result_and_its_times(store: Store) -> None:
    """The record tells the whole way in order."""
    job = finished(store, 2)
    found = read(store, job)
    assert (found.status, found.result, found.error) == ("completed", f"{job.id}/result.json", None)
    assert (found.expected, found.added, found.done, found.failed) == (2, 2, 2, 0)
    assert (found.engine, found.model, found.usage) == ("scripted", "m", {"pages": 2})
    times = [found.created_ms, found.preparing_ms, found.prepared_ms, found.started_ms, found.ended_ms]
    assert times == sorted(times)
    assert times[0] > 0


# -- put back


@pytest.mark.parametrize(("counts", "tries"), [(True, 1), (False, 0)])
def test_a_part_put_back_runs_again(store: Store, counts: bool, tries: int) -> None:
    """Its try counts when it failed, and not when its worker was told to go."""
    job = prepared(store)
    assert store.work.put_back(claim(store), counts=counts) == VISION
    assert store.work.waiting() == {VISION: 1}
    again = claim(store)
    assert (again.name, again.token, again.tries, again.suspect) == ("0", "2", tries, False)
    assert complete(store, again) is not None
    assert read(store, job).done == 1


def test_a_preparation_and_a_finishing_put_back_wait_with_the_side_worker(store: Store) -> None:
    """Both go where they came from."""
    submit(store)
    assert store.work.put_back(claim(store, "prepare"), counts=True) == "prepare"
    prepare = claim(store, "prepare")
    assert prepare.tries == 1
    plan(store, prepare, 1)
    finish = complete(store, claim(store))
    assert finish is not None
    assert store.work.put_back(finish, counts=False) == "prepare"
    assert claim(store, "prepare").name == "finish"


# -- cancel, at each moment


def cancelled(store: Store, job: NewJob, *, result: str = "") -> None:
    """Check that a job ended as cancelled and that nothing of it is left to do."""
    found = read(store, job)
    assert (found.status, found.result) == (Status.CANCELLED, result)
    assert found.error == error_json(CANCEL, "cancel")
    assert nothing_waits(store)
    assert store.jobs.ended() == {("ocr", "cancelled"): 1}


def test_a_queued_job_is_cancelled_at_once(store: Store) -> None:
    """Nobody has to be waited for."""
    job = submit(store)
    assert store.jobs.cancel(job.id, CANCEL) == ""
    cancelled(store, job)


def test_a_job_in_preparation_is_cancelled_when_that_has_stopped(store: Store) -> None:
    """Until then it says `cancelling`; the heartbeat tells the worker, and what it still plans is not added."""
    job = submit(store)
    prepare = claim(store, "prepare")
    plan(store, prepare, 1, sealed=False)
    assert store.work.heartbeat([prepare.member], LONG_MS) == ["ok"]
    store.jobs.cancel(job.id, CANCEL)
    assert read(store, job).status == "cancelling"
    assert store.work.heartbeat([prepare.member], LONG_MS) == ["stop"]
    assert plan(store, prepare, 1, first=1, sealed=False) == (0, None)
    assert read(store, job).status == "cancelling"
    store.work.put_back(prepare, counts=False)
    cancelled(store, job)
    assert [p.state for p in snapshot(store, job)[1]] == ["dropped"]


def test_a_preparation_that_ends_before_it_hears_of_the_cancel_ends_the_job(store: Store) -> None:
    """Sealing adds nothing any more."""
    job = submit(store)
    prepare = claim(store, "prepare")
    store.jobs.cancel(job.id, CANCEL)
    assert plan(store, prepare, 5) == (0, None)
    cancelled(store, job)


def test_a_preparation_that_fails_after_the_cancel_ends_as_cancelled(store: Store) -> None:
    """The cancel came first."""
    job = submit(store)
    prepare = claim(store, "prepare")
    store.jobs.cancel(job.id, CANCEL)
    store.work.end(prepare, "failed", error={"code": "unreadable_pdf"})
    cancelled(store, job)


def test_a_prepared_job_is_cancelled_at_once(store: Store) -> None:
    """Parts that wait, and those outside the window, are dropped."""
    job = prepared(store, 5, window=2)
    store.jobs.cancel(job.id, CANCEL)
    cancelled(store, job)


def test_a_running_job_is_cancelled_when_its_parts_have_stopped(store: Store) -> None:
    """`cancelled` is said only once it is true."""
    job = prepared(store, 5, window=3)
    running = [claim(store) for _ in range(2)]
    store.jobs.cancel(job.id, CANCEL)
    assert store.work.heartbeat([u.member for u in running], LONG_MS) == ["stop", "stop"]
    assert store.work.put_back(running[0], counts=False) == ""
    assert read(store, job).status == "cancelling"
    assert store.work.put_back(running[1], counts=False) == ""
    cancelled(store, job)


def test_what_a_cancelled_job_had_done_is_kept(store: Store) -> None:
    """With one part done, the last worker to stop leaves a finishing in the queue, which puts that part together."""
    job = prepared(store, 4, window=3)
    done, running = claim(store), claim(store)
    complete(store, done)
    store.jobs.cancel(job.id, CANCEL)
    assert store.work.put_back(running, counts=False) == "prepare"
    assert read(store, job).status == "cancelling"
    finish = claim(store, "prepare")
    assert finish.name == "finish"
    store.work.end(finish, "completed", result="what there is")
    cancelled(store, job, result="what there is")
    assert [p.state for p in snapshot(store, job)[1]] == ["done", "dropped", "dropped", "dropped"]


def test_a_part_done_while_its_job_is_being_cancelled_counts(store: Store) -> None:
    """It came too late to be stopped; the report hands out the finishing."""
    job = prepared(store, 2)
    part = claim(store)
    store.jobs.cancel(job.id, CANCEL)
    finish = complete(store, part)
    assert finish is not None
    store.work.end(finish, "completed", result="r")
    cancelled(store, job, result="r")


def test_a_part_failed_while_its_job_is_being_cancelled_ends_it(store: Store) -> None:
    """There is nothing to put together."""
    job = prepared(store, 2)
    part = claim(store)
    store.jobs.cancel(job.id, CANCEL)
    assert complete(store, part, FAILED) is None
    cancelled(store, job)


def test_a_job_cancelled_while_it_is_being_finished_is_cancelled(store: Store) -> None:
    """The finishing goes on, and its result is what was done."""
    job = prepared(store)
    finish = complete(store, claim(store))
    assert finish is not None
    assert store.jobs.cancel(job.id, CANCEL) == ""
    assert read(store, job).status == "cancelling"
    assert store.work.heartbeat([finish.member], LONG_MS) == ["ok"]
    store.work.end(finish, "completed", result="r")
    cancelled(store, job, result="r")


def test_a_job_cancelled_while_its_finishing_waits_is_cancelled(store: Store) -> None:
    """The finishing is not dropped with the rest."""
    job = prepared(store)
    finish = complete(store, claim(store))
    assert finish is not None
    store.work.put_back(finish, counts=False)
    store.jobs.cancel(job.id, CANCEL)
    store.work.end(claim(store, "prepare"), "completed", result="r")
    cancelled(store, job, result="r")


@pytest.mark.parametrize("lost", ["prepare", "part"])
def test_a_cancelled_jobs_worker_that_dies_is_waited_for_no_longer_than_its_lease(store: Store, lost: str) -> None:
    """The reaper drops what it held."""
    job = submit(store)
    unit = claim(store, "prepare")
    if lost == "part":
        plan(store, unit, 1)
        unit = claim(store)
    store.jobs.cancel(job.id, CANCEL)
    lose_lease(store, unit)
    cancelled(store, job)


def test_a_job_that_ended_cannot_be_cancelled(store: Store) -> None:
    """Nor can a second cancel change the first one's words, nor an unknown job be told anything."""
    done = finished(store)
    before = read(store, done)
    assert store.jobs.cancel(done.id, CANCEL) == ""
    assert read(store, done) == before
    job = submit(store)
    store.jobs.cancel(job.id, CANCEL)
    store.jobs.cancel(job.id, Cancelled("Again."))
    assert read(store, job).error == error_json(CANCEL, "cancel")
    assert store.jobs.cancel("job_none", CANCEL) == ""
    assert store.jobs.find("job_none") is None


# -- failing


def test_a_preparation_that_fails_fails_the_job(store: Store) -> None:
    """The error is the job's."""
    job = submit(store)
    error = {"code": "encrypted_pdf", "message": "No."}
    assert store.work.end(claim(store, "prepare"), "failed", error=error) == ""
    assert (read(store, job).status, read(store, job).error) == ("failed", error)
    assert nothing_waits(store)


def test_a_preparation_that_fails_late_waits_for_the_parts_that_run(store: Store) -> None:
    """They are told to stop; what was done is put together although the job failed."""
    job = submit(store, window=2)
    prepare = claim(store, "prepare")
    plan(store, prepare, 4, sealed=False)
    done, running = claim(store), claim(store)
    complete(store, done)
    error = {"code": "fetch_failed", "message": "No."}
    assert store.work.end(prepare, "failed", error=error) == ""
    assert read(store, job).status == "in_progress"
    assert store.work.heartbeat([running.member], LONG_MS) == ["stop"]
    assert store.work.put_back(running, counts=False) == "prepare"
    store.work.end(claim(store, "prepare"), "completed", result="r")
    assert (read(store, job).status, read(store, job).error) == ("failed", error)
    assert nothing_waits(store)


# -- deadlines


@pytest.mark.parametrize("running", [False, True])
def test_a_job_past_its_deadline_is_cancelled_with_its_own_code(store: Store, running: bool) -> None:
    """`cancel_after` is a cancel by the clock; jobs without one go on."""
    job = prepared(store, cancel_after=1)
    part = claim(store) if running else None
    patient = submit(store)
    assert reap(store).stopped == []
    reap_until(store, lambda r: r.stopped == [job.id])
    if part:
        assert read(store, job).status == "cancelling"
        assert store.work.heartbeat([part.member], LONG_MS) == ["stop"]
        store.work.put_back(part, counts=False)
    found = read(store, job)
    assert (found.status, found.error and found.error["code"]) == ("cancelled", "deadline_exceeded")
    assert read(store, patient).status == "queued"
    assert reap(store).stopped == []


def test_a_job_that_ended_in_time_has_no_deadline_any_more(store: Store) -> None:
    """Nothing is left for the reaper to look at."""
    for end in (lambda: finished(store, cancel_after=1), lambda: submit(store, cancel_after=1)):
        job = end()
        store.jobs.cancel(job.id, CANCEL)
        assert store.client.zscore(key("deadlines"), job.id) is None


# -- expiry


TOLD_BY_A_TOMBSTONE = {"v", "id", "type", "owner", "status", "metadata", "attempts"}


def is_tombstone(store: Store, job: NewJob) -> None:
    """Check that a job is expired and that nothing of its input or result is left."""
    record = store.client.hgetall(key("job", job.id))
    assert record["status"] == "expired"
    assert {name for name in record if not name.endswith("_ms")} == TOLD_BY_A_TOMBSTONE
    assert not store.client.exists(key("units", job.id))
    assert 0 < store.client.pttl(key("job", job.id)) <= TOMBSTONE_MS
    assert store.jobs.newest(job.owner, limit=9) == ([], False)
    assert read(store, job).inputs == ()
    check_store(store)


@pytest.mark.parametrize(
    "moment",
    ["queued", "preparing", "prepared", "running", "finishing", "finish waits", "cancelling", "cancelled", "completed"],
)
def test_every_job_ends_as_a_tombstone(store: Store, moment: str) -> None:
    """Whatever it was doing; its work is dropped, and who still works on it has lost it."""
    job = submit(store, expires_in=0, window=2, metadata={"a": "b"}, cancel_after=600)
    held = claim(store, "prepare") if moment != "queued" else None
    if moment not in ("queued", "preparing"):
        assert held
        plan(store, held, 3)
    if moment in ("running", "cancelling"):
        held = claim(store)
    if moment in ("finishing", "finish waits", "completed"):
        for _ in range(3):
            held = complete(store, claim(store))
    if moment == "finish waits":
        assert held
        store.work.put_back(held, counts=False)
    if moment == "completed":
        assert held
        store.work.end(held, "completed", result="r")
    if moment in ("cancelling", "cancelled"):
        store.jobs.cancel(job.id, CANCEL)
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
    """The first round tells it to stop, the second takes the job away."""
    job = prepared(store, expires_in=0)
    part = claim(store)
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
    ends = store.client.zscore(key("leases"), part.member)
    eventually(lambda: _redis_ms(store) > ends - LONG_MS + 250, what="the end of the first lease")
    assert reap(store).put_back == []
    complete(store, part)


def _redis_ms(store: Store) -> int:
    seconds, micros = store.client.time()
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
    eventually(lambda: _redis_ms(store) > max(s for _, s in store.client.zrange(key("leases"), 0, -1, withscores=True)))
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
        store.client.eval(script, 0)


# -- webhooks' schedule


def events(store: Store) -> list[str]:
    """The names of the deliveries that are scheduled."""
    return [name.split("|")[1] for name in store.client.zrange(key("hooks"), 0, -1)]


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
    assert store.client.hget(key("hook", hook.name), "outcome") == outcome


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
    assert not store.client.exists(key("hook", hook.name))


# -- telling


def test_every_change_of_status_is_told(store: Store) -> None:
    """Who waits for a job hears of each step."""
    with store.client.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(key("changes"))
        assert channel.get_message(timeout=2) is None  # the confirmation, which is ignored
        job = finished(store)
        store.jobs.delete(job.id)
        told = []
        while not told or told[-1] != "deleted":
            if message := channel.get_message(timeout=2):
                told.append(message["data"].removeprefix(f"{job.id} "))
    assert told == ["queued", "in_progress", "progress", "completed", "deleted"]


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
