"""Runs one unit of work from claim to report: the step between a Celery ticket and prepare, infer or finish."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from phi4.errors import BlobsUnavailable, Cancelled, EngineDead, LeaseLost, Phi4Error, StoreUnavailable
from phi4.job import Status, Unit
from phi4.log import log
from phi4.store import Store
from phi4.store.work import new_report
from phi4.tracing import OFF, Span, Tracing
from worker import metrics
from worker.finish import Finish
from worker.gate import Gate
from worker.in_flight import Held, InFlight
from worker.infer import Infer
from worker.prepare import Prepare
from worker.reports import Reports

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
#: A finished part is worth waiting for Redis this long; after that its lease is gone and it runs again.
_REPORT_FOR_S = 60.0
#: A unit whose files cannot be reached is tried again after this long, for as long as its job may take.
_BLOBS_AWAY_S = 2.0
#: Outcomes that are no failure of the unit: its own end, a wish of the job's owner, or another try.
_WELL = ("done", "completed", "stopped", "retried", "cancelled")


@dataclass(frozen=True, slots=True)
class Runner:
    """The collaborators of one worker; a worker without an engine has no `infer`."""

    name: str
    store: Store
    reports: Reports
    in_flight: InFlight
    finish: Finish
    prepare: Prepare
    infer: Infer | None
    on_engine_dead: Callable[[], None]
    lease_ms: int
    gate: Gate
    #: Whether it finishes jobs whose last part it ran. One that has to keep a GPU full leaves that to side workers.
    finishes: bool = True
    tracing: Tracing = OFF

    def work(self, queue: str) -> bool:
        """Take the next unit of a queue and run it; False when there was none."""
        unit = self.store.work.claim(queue, self.name, self.lease_ms)
        if unit is None:
            return False
        if unit.is_part and unit.job.status == Status.QUEUED:
            log(_log, "job in_progress", **unit.job.log_context())
        enter = self.gate.alone if unit.suspect else self.gate.beside_others
        with self.in_flight.holding(unit) as held, metrics.IN_FLIGHT.track_inprogress():
            try:
                with enter(held.stopped):
                    self._run(held)
            except Cancelled:  # while it waited for its place
                self._put_back(unit, counts=False)
        return True

    def let_go(self, unit: Unit) -> None:
        """Report a unit that pays no heed to its flag as stopped; whatever it still does changes nothing."""
        metrics.PARTS.labels(unit.job.type, "part" if unit.is_part else unit.name, "hung").inc()
        log(_log, "unit hangs", level=logging.ERROR, unit=unit.name, **unit.job.log_context())
        self._put_back(unit, counts=False)

    def _run(self, held: Held) -> None:
        unit, began = held.unit, time.monotonic()
        kind = "part" if unit.is_part else unit.name
        with self._span(unit, kind) as span:
            held.traceparent = span.traceparent
            outcome = self._outcome(held)
            span.note(phi4__outcome=outcome)
            if outcome not in _WELL:
                span.fail(outcome)
        seconds = time.monotonic() - began
        metrics.PARTS.labels(unit.job.type, kind, outcome).inc()
        metrics.PART_SECONDS.labels(unit.job.type, kind).observe(seconds)
        log(_log, f"{kind} {outcome}", unit=unit.name, ms=int(seconds * 1000), **unit.job.log_context())

    def _span(self, unit: Unit, kind: str) -> AbstractContextManager[Span]:
        """Tell of the unit's wait, and hold its own step, both below the request that made the job."""
        above = unit.job.traceparent
        about = {"phi4.job": unit.job.id, "phi4.type": unit.job.type, "phi4.unit": unit.name}
        if unit.waited_ms:
            self.tracing.waited(f"queue {kind}", above=above, seconds=unit.waited_ms / 1000, attributes=about)
        return self.tracing.step(kind, above=above, kind="consumer", attributes=about)

    def _outcome(self, held: Held) -> str:
        unit = held.unit
        try:
            if unit.suspect:
                self.store.work.runs_alone(unit)
            outcome = self._run_kind(held)
        except Cancelled:
            outcome = "stopped"
            self._put_back(unit, counts=False)
        except BlobsUnavailable:
            # It says nothing of the job: no try is counted, and no queue runs empty over it either.
            outcome = "retried"
            held.stopped.wait(_BLOBS_AWAY_S)
            self._put_back(unit, counts=False)
        except LeaseLost:
            outcome = "lost"
        except EngineDead:
            # Not put back: its lease runs out as after a crash, so that a part which ends every engine is found out.
            outcome = "engine_dead"
            self.on_engine_dead()
        except Phi4Error as error:
            # Its lease runs out, and the reaper gives it to somebody else.
            outcome = error.code
        return outcome

    def _run_kind(self, held: Held) -> str:
        match held.unit.name:
            case "prepare":
                return self._prepare(held)
            case "finish":
                return self._finish(held.unit)
        return self._part(held)

    def _prepare(self, held: Held) -> str:
        unit = held.unit
        try:
            finish = self.prepare.run(held)
        except (BlobsUnavailable, Cancelled, LeaseLost):
            raise
        except Phi4Error as error:
            if error.retryable and unit.tries + 1 < self.prepare.tries:
                # Redis being away says nothing of the job.
                self._put_back(unit, counts=not isinstance(error, StoreUnavailable))
                return "retried"
            self.prepare.fail(unit, error)
            return "failed"
        if finish is not None:
            self._hand_on(finish)
        return "done"

    def _part(self, held: Held) -> str:
        assert self.infer is not None  # only a worker with an engine consumes these queues
        unit = held.unit
        outcome = self.infer.run(held)
        if outcome is None:
            self._put_back(unit, counts=True)
            return "retried"
        for kind in ("prompt", "completion"):
            metrics.TOKENS.labels(kind).inc((outcome.usage or {}).get(f"{kind}_tokens", 0))
        complete = partial(self.store.work.complete, finishes=self.finishes, again=new_report())
        reported = self._persist(lambda: complete(unit, outcome, self.name, self.lease_ms))
        self.reports.follow(unit, reported)
        if reported.finish is not None:
            self._hand_on(reported.finish)
        return "failed" if outcome.error else "done"

    def _hand_on(self, finish: Unit) -> None:
        """Finish the job at once, under a lease of its own."""
        with self.in_flight.holding(finish) as held:
            self._run(held)

    def _finish(self, unit: Unit) -> str:
        again = new_report()
        try:
            made = self._persist(lambda: self.finish.make(unit))
            reported = self._persist(lambda: self.finish.end(unit, made, again))
        except (BlobsUnavailable, LeaseLost):
            raise
        except Phi4Error as error:
            reported = self.finish.fail(unit, error)
        else:
            self.finish.ended(unit, made, reported)
        return str(reported.ended.status) if reported.ended else "expired"

    def _put_back(self, unit: Unit, *, counts: bool) -> None:
        try:
            again = new_report()
            reported = self._persist(lambda: self.store.work.put_back(unit, counts=counts, again=again))
        except LeaseLost:
            return
        self.reports.follow(unit, reported)

    def _persist(self, step: Callable[[], _T]) -> _T:
        """Repeat a step while Redis or the blob store is away, for a while. Raises `LeaseLost`, `BlobsUnavailable`."""
        ends = time.monotonic() + _REPORT_FOR_S
        while True:
            try:
                return step()
            except (BlobsUnavailable, StoreUnavailable) as error:
                if time.monotonic() > ends:
                    raise (error if isinstance(error, BlobsUnavailable) else LeaseLost()) from None
                time.sleep(0.5)
