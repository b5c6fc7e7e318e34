"""Random walks through the real store beside a simple model: whatever happens, each job ends, and ends once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from phi4.errors import Cancelled, LeaseLost, NotRetryable
from phi4.job import Job, NewJob, Share, Unit
from phi4.store import Store
from phi4.store.keys import key
from phi4.store.work import Reaped, Reported
from tests.making_jobs import (
    DEATHS,
    DONE,
    FAILED,
    LONG_MS,
    VISION,
    WORKER,
    check_store,
    claim,
    new_job,
    plan,
    raw,
    reap,
)

TERMINAL = {"completed", "failed", "cancelled", "expired"}


@dataclass
class Known:
    """What the model knows of one job."""

    job: NewJob
    status: str = "queued"
    result: str = ""
    ends: int = 0
    told: int = 0  #: ends that a step said it had brought about
    untold: int = 0  #: those by expiry, which are told when the job is erased
    runs: int = 1
    deleted: bool = False


class Walk(RuleBasedStateMachine):
    """Clients, workers and the reaper, each doing one step at a time in any order."""

    store: Store  # set by the fixture below

    jobs: Bundle[Known] = Bundle("jobs")
    held: Bundle[Unit] = Bundle("held")  #: units some worker believes to hold; many are lost in truth

    @initialize()
    def empty(self) -> None:
        """Begin with nothing."""
        raw(self.store).flushdb()
        self.known: list[Known] = []
        self.expiring: set[str] = set()

    # -- clients

    @rule(target=jobs, owner=st.sampled_from("abc"), window=st.integers(1, 3), shared=st.booleans())
    def submit(self, owner: str, window: int, shared: bool) -> Known:
        """Submit a job, perhaps with a key that may have few pages in flight."""
        share = Share(owner, 2) if shared else Share()
        known = Known(new_job(owner, window=window, share=share))
        self.store.jobs.submit(known.job, most_waiting=10_000)
        self.known.append(known)
        return known

    @rule(known=jobs)
    def submit_again(self, known: Known) -> None:
        """Repeat a call whose answer got lost."""
        if not known.deleted:
            self.store.jobs.submit(known.job, most_waiting=10_000)

    @rule(known=jobs)
    def cancel(self, known: Known) -> None:
        """Cancel a job, ended or not."""
        known.told += self.store.jobs.cancel(known.job.id, Cancelled()).status == "cancelled"

    @rule(known=jobs)
    def retry(self, known: Known) -> None:
        """Run a job again, which may be refused; twice, as one whose answer got lost."""
        if (found := self.store.jobs.find(known.job.id)) is None:
            return
        try:
            for _ in range(2):
                self.store.jobs.retry(found, most_waiting=10_000)
        except NotRetryable:
            assert found.status not in ("failed", "cancelled")
            return
        known.runs += 1
        known.status = "queued"
        assert found.attempts + 1 == known.runs

    @rule(known=consumes(jobs))
    def delete(self, known: Known) -> None:
        """Delete a job, ended or not."""
        assert self.store.jobs.delete(known.job.id)
        known.deleted = True

    # -- workers

    @rule(target=held, queue=st.sampled_from(["prepare", VISION]))
    def claim(self, queue: str) -> Any:
        """Take the next unit of a queue."""
        unit = self.store.work.claim(queue, WORKER, LONG_MS)
        return multiple() if unit is None else unit

    @rule(target=held, unit=held, parts=st.integers(0, 4), sealed=st.booleans(), pages=st.integers(1, 3))
    def plan(self, unit: Unit, parts: int, sealed: bool, pages: int) -> Any:
        """Add parts from a preparation, which may have been lost."""
        if unit.name != "prepare":
            return multiple()
        found = self.store.jobs.find(unit.job.id)
        with self._reporting():
            first = found.added if found else 0
            finish = self._heard(unit, plan(self.store, unit, parts, first=first, sealed=sealed, pages=pages))
            return multiple() if finish is None else finish
        return multiple()

    @rule(target=held, parts=st.integers(1, 4), pages=st.integers(1, 3))
    def prepare(self, parts: int, pages: int) -> Any:
        """Prepare the next job in one go, and begin with the next part: walks would else seldom come so far."""
        if unit := self.store.work.claim("prepare", WORKER, LONG_MS):
            with self._reporting():
                self._heard(unit, plan(self.store, unit, parts, first=unit.job.added, pages=pages))
        part = self.store.work.claim(VISION, WORKER, LONG_MS)
        return multiple() if part is None else part

    @rule(target=held, unit=held, well=st.booleans())
    def end(self, unit: Unit, well: bool) -> Any:
        """Report a unit as done or failed; it may have been lost, or reported before."""
        with self._reporting():
            if unit.name not in ("prepare", "finish"):
                outcome = DONE if well else FAILED
                finish = self._heard(unit, self.store.work.complete(unit, outcome, WORKER, LONG_MS))
                return multiple() if finish is None else finish
            if unit.name == "finish" and well:
                self._heard(unit, self.store.work.end(unit, "completed", result=f"by {unit.token}"))
            else:
                self._heard(unit, self.store.work.end(unit, "failed", error={"code": "x"}))
        return multiple()

    @rule(unit=held, earlier=jobs)
    def reuse(self, unit: Unit, earlier: Known) -> None:
        """End a job in its preparation with what another one had given, unless parts were added before."""
        found = self.store.jobs.find(earlier.job.id)
        if unit.name != "prepare" or unit.job.added or found is None or found.status != "completed":
            return
        with self._reporting():
            self._heard(unit, self.store.work.reuse(unit, found, "a copy", []))

    @rule(unit=held, counts=st.booleans())
    def put_back(self, unit: Unit, counts: bool) -> None:
        """Return a unit to its queue."""
        with self._reporting():
            self._heard(unit, self.store.work.put_back(unit, counts=counts))

    @rule(unit=held, alone=st.booleans())
    def die(self, unit: Unit, alone: bool) -> None:
        """Lose a worker, and let the reaper find out."""
        with self._reporting():
            if alone:
                self.store.work.runs_alone(unit)
        raw(self.store).zadd(key("leases"), {unit.member: 1}, xx=True)
        self._reap()

    @rule(unit=held)
    def obey(self, unit: Unit) -> None:
        """Do what the heartbeat says."""
        [beat] = self.store.work.heartbeat([unit.member], LONG_MS)
        if beat == "stop":
            self._heard(unit, self.store.work.put_back(unit, counts=False))

    # -- the clock

    @rule(known=jobs, what=st.sampled_from(["deadlines", "expiries"]))
    def time_passes(self, known: Known, what: str) -> None:
        """Reach a job's deadline or its expiry."""
        raw(self.store).zadd(key(what), {known.job.id: 1}, xx=what == "expiries")
        if what == "expiries":
            self.expiring.add(known.job.id)
        self._reap()

    # -- what must hold

    def _heard(self, unit: Unit, reported: Reported) -> Unit | None:
        """Note whether a report ended its job; gives the job's finishing when it fell to this report."""
        self._of(unit.job.id).told += reported.ended is not None
        return reported.finish

    def _reap(self) -> Reaped:
        reaped = reap(self.store)
        for job in reaped.ended:
            self._of(job.id).told += 1
        return reaped

    def _of(self, job_id: str) -> Known:
        [known] = [known for known in self.known if known.job.id == job_id]
        return known

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """A report may come too late; then it must have changed nothing."""
        before = self._records()
        try:
            yield
        except LeaseLost:
            assert self._records() == before

    def _records(self) -> list[dict[str, str]]:
        names = [n for k in self.known for n in (key("job", k.job.id), key("units", k.job.id))]
        return [raw(self.store).hgetall(n) for n in names]

    @invariant()
    def counters_are_exact(self) -> None:
        """Backlog, turns, windows and times to live, at every moment."""
        check_store(self.store)

    @invariant()
    def the_end_is_the_end(self) -> None:
        """A job that ended stays so, but for expiry; its result and error never change; deleted is gone."""
        for known in self.known:
            found = self.store.jobs.find(known.job.id)
            assert (found is None) == known.deleted
            if found is None:
                continue
            status = found.status.value
            if known.status in TERMINAL:
                assert status == known.status or (status == "expired" and known.job.id in self.expiring)
                assert found.result == ("" if status == "expired" else known.result)
            elif status in TERMINAL:
                known.ends += 1
                known.untold += status == "expired"
                known.result = found.result
                assert found.ended_ms
            known.status = status
            assert known.told == known.ends - known.untold, "each end is told by one step"
            self._check_events(known, found)
        assert sum(self.store.jobs.ended().values()) == sum(k.ends for k in self.known), "each end is counted once"

    def _check_events(self, known: Known, found: Job) -> None:
        """The newest status told is the job's, a run's end is told last and once, and no number is missing."""
        _, events = self.store.events.read(known.job.id)
        told = [e.data["status"] for e in events if e.name == "status"]
        assert told[-1:] == [found.status] or (found.status == "expired" and not told)
        assert [e.is_last for e in events] == [False] * (len(events) - 1) + [found.status.is_terminal] * bool(events)
        assert [b.number - a.number for a, b in pairwise(events)] == [1] * (len(events) - 1)

    def teardown(self) -> None:
        """Drain: with workers that live and obey, everything ends and nothing is left."""
        if not hasattr(self, "known"):
            return
        for _ in range(1_000):
            if not self._drain_one():
                break
        self.the_end_is_the_end()
        check_store(self.store)
        assert {k.status for k in self.known if not k.deleted} <= TERMINAL
        assert all(k.ends == k.runs for k in self.known if not k.deleted)
        assert self.store.work.waiting() == {}
        assert raw(self.store).zcard(key("leases")) == 0

    def _drain_one(self) -> bool:
        """Let every lease end, reap, and do one unit well; False when there was nothing to do."""
        for member in raw(self.store).zrange(key("leases"), 0, -1):
            raw(self.store).zadd(key("leases"), {member: 1})
        reaped = self._reap()
        for queue in ("prepare", VISION):
            if self.store.work.waiting().get(queue):
                self._do(claim(self.store, queue))
                return True
        return bool(reaped.put_back or reaped.expired or reaped.wake)

    def _do(self, unit: Unit) -> None:
        finish: Unit | None = unit
        if unit.name == "prepare":
            finish = self._heard(unit, plan(self.store, unit, 1))
        elif unit.name != "finish":
            finish = self._heard(unit, self.store.work.complete(unit, DONE, WORKER, LONG_MS))
        if finish is not None:
            self._heard(finish, self.store.work.end(finish, "completed", result="drained"))


@pytest.mark.timeout(120)
def test_any_walk_keeps_the_store_consistent_and_ends(store: Store) -> None:
    """Counters exact at every step, no change after the end, no report of a lost lease, no job left behind."""
    Walk.store = store
    assert DEATHS == 3  # so that a walk can reach a third death
    run_machine(
        Walk,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
