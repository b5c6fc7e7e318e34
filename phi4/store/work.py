"""Work as a worker sees it: claim a unit under a lease, report on it, and put back what others let fall."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import redis

from phi4.errors import DeadlineExceeded, LeaseLost, WorkerLost
from phi4.job import QUEUES, RECORD_VERSION, Job, Unit, error_json
from phi4.store.events import Piece
from phi4.store.keys import key
from phi4.store.scripts import Scripts, job_of

Beat = Literal["ok", "stop", "lost"]
#: Owners of one queue that are looked at for its oldest unit: for a figure, not for an order.
_MOST_OWNERS = 1_000


@dataclass(frozen=True, slots=True)
class Reaped:
    """What one round of reaping did."""

    put_back: list[tuple[str, str, str]]  #: job, unit, worker that let it fall
    stopped: list[str]  #: jobs past their deadline
    ended: list[Job]  #: jobs that failed or were cancelled by it
    expired: list[str]  #: jobs whose blobs are to be erased
    wake: list[str]  #: queues that got work
    more: bool  #: whether as much was done as one round may do


@dataclass(frozen=True, slots=True)
class Reported:
    """What a report on a unit led to; queues are to be woken by who reported."""

    let_in: int  #: parts that entered the job's queue
    finish: Unit | None  #: the job's finishing, when it fell to this worker
    wake: str  #: the queue that a unit waits in again, or ''
    ended: Job | None  #: the job, if it ended by this: who reported tells of it and erases what is left


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one part ended: where its answer is kept, or its error; and what it used."""

    out: str = ""
    error: Mapping[str, Any] | None = None
    usage: Mapping[str, float] | None = None
    engine: str = ""
    model: str = ""
    last_piece: Piece | None = None  #: text that no reader has been told yet


def new_report() -> str:
    """A word under which one report can be made again, should its answer get lost."""
    return secrets.token_hex(8)


class Work:
    """Units of work; each method is one atomic step, and raises `LeaseLost` when another attempt owns the unit now.

    A report that is made `again`, under the word of `new_report`, changes nothing and is answered as the first time.
    """

    def __init__(self, client: redis.Redis, scripts: Scripts) -> None:
        self._client = client
        self._scripts = scripts

    def claim(self, queue: str, worker: str, lease_ms: int) -> Unit | None:
        """Take the next unit of a queue, owners in turn; None when there is none."""
        reply = self._scripts.run("claim", queue, worker, lease_ms, RECORD_VERSION)
        if not reply:
            return None
        _, name, token, tries, suspect, spec, waited, record = reply
        return Unit(job_of(record), name, token, int(tries), suspect == "1", json.loads(spec or "{}"), int(waited or 0))

    def plan(
        self,
        prepare: Unit,
        specs: Sequence[Mapping[str, Any]],
        *,
        first: int,
        sealed: bool,
        worker: str,
        lease_ms: int,
        expected: int = 0,
        inputs: Sequence[Mapping[str, Any]] | None = None,
    ) -> Reported:
        """Add parts from number `first` on; `sealed` says that these were the last and ends the preparation."""
        return self._report(
            prepare,
            "plan",
            prepare.job.id,
            prepare.token,
            first,
            json.dumps([json.dumps(s) for s in specs]) if specs else "[]",
            expected,
            int(sealed),
            json.dumps(inputs) if inputs is not None else "",
            worker,
            lease_ms,
        )

    def complete(
        self, part: Unit, outcome: Outcome, worker: str, lease_ms: int, *, finishes: bool = True, again: str = ""
    ) -> Reported:
        """Report a part as done or failed; the finishing waits in a queue when this worker does not finish jobs."""
        last = outcome.last_piece
        return self._report(
            part,
            "complete",
            part.job.id,
            part.name,
            part.token,
            "failed" if outcome.error else "done",
            outcome.out,
            json.dumps(dict(outcome.usage or {})),
            json.dumps(outcome.error) if outcome.error else "",
            worker,
            lease_ms,
            outcome.engine,
            outcome.model,
            *((last.take, last.offset, last.text) if last else (0, 0, "")),
            int(not finishes),
            again=again,
        )

    def put_back(self, unit: Unit, *, counts: bool, again: str = "") -> Reported:
        """Return a unit to its queue, counting this try or not; one of a job that is stopping is dropped."""
        return self._report(unit, "put_back", unit.job.id, unit.name, unit.token, int(counts), again=again)

    def end(
        self, unit: Unit, status: str, *, error: Mapping[str, Any] | None = None, result: str = "", again: str = ""
    ) -> Reported:
        """End the job, from its preparation (only as failed, once what runs has ended) or its finishing."""
        body = json.dumps(error) if error else ""
        return self._report(unit, "end_job", unit.job.id, unit.name, unit.token, status, body, result, again=again)

    def reuse(self, prepare: Unit, earlier: Job, result: str, inputs: Sequence[Mapping[str, Any]]) -> Reported:
        """End the job in its preparation with a copy of an earlier one's result."""
        told = (prepare.job.id, prepare.token, earlier.id, result, json.dumps(inputs))
        return self._report(prepare, "reuse", *told)

    def runs_alone(self, unit: Unit) -> None:
        """Note that a suspect now runs with nothing beside it."""
        if not self._scripts.run("alone", unit.job.id, unit.name, unit.token):
            raise LeaseLost

    def heartbeat(self, members: Sequence[str], lease_ms: int) -> list[Beat]:
        """Renew the leases of units (`Unit.member`); says for each whether to go on, stop, or forget it."""
        return cast(list[Beat], self._scripts.run("heartbeat", lease_ms, *members)) if members else []

    def reap(self, *, max_deaths: int, limit: int = 100) -> Reaped:
        """Put back work whose lease ran out, stop jobs past their deadline, expire jobs past their time."""
        lost = json.dumps(error_json(WorkerLost(), "run"))
        late = json.dumps(error_json(DeadlineExceeded(), "deadline"))
        put, stopped, ended, expired, wake = self._scripts.run("reap", max_deaths, lost, late, limit)
        fallen = [cast(tuple[str, str, str], tuple(member.split("|"))) for member in put]
        more = max(map(len, (put, stopped, expired))) >= limit
        return Reaped(fallen, stopped, [job_of(record) for record in ended], expired, [q for q in wake if q], more)

    def leftovers(self, *, until_ms: int, limit: int = 100) -> list[tuple[str, int]]:
        """List jobs, with their run, that ended before some time (Redis' clock) and were not noted as `erased`."""
        found = cast(list[str], self._client.zrange(key("leftovers"), 0, until_ms, byscore=True, offset=0, num=limit))
        return [(job, int(run)) for job, _, run in (member.partition("|") for member in found)]

    def put_off(self, job_id: str, run: int, now_ms: int) -> None:
        """Look at what could not be erased as if the job had ended now."""
        self._client.zadd(key("leftovers"), {f"{job_id}|{run}": now_ms}, xx=True)

    def erased(self, job_id: str, run: int) -> None:
        """Note that nothing is left that the end of this run of a job left no use for."""
        self._client.zrem(key("leftovers"), f"{job_id}|{run}")

    def hold_lock(self, name: str, holder: str, seconds: float) -> bool:
        """Take or keep a lock that one process at a time may hold."""
        return bool(self._scripts.run("hold_lock", name, holder, int(seconds * 1000)))

    def waiting(self) -> dict[str, int]:
        """Count the units that wait, by queue; `held` are parts outside their job's window."""
        counts = cast(dict[str, str], self._client.hgetall(key("backlog")))
        return {queue: int(n) for queue, n in counts.items() if int(n) > 0}

    def oldest(self) -> dict[str, float]:
        """Tell how long, in seconds, the first unit of each queue has been waiting; 0 where none waits."""
        ages = self._scripts.run("oldest", _MOST_OWNERS, *QUEUES)
        return {queue: max(0, int(age)) / 1000 for queue, age in zip(QUEUES, ages, strict=True) if queue != "webhooks"}

    def _report(self, unit: Unit, script: str, *arguments: str | bytes | int | float, again: str = "") -> Reported:
        # The client library sends a command again when its answer got lost: the same word gets the same answer.
        reply = cast(list[Any], self._scripts.run(script, *arguments, again or new_report()))
        if reply[0] != "ok":
            raise LeaseLost
        _, let_in, token, wake, ended = reply
        return Reported(let_in, unit.as_finish(token) if token else None, wake, job_of(ended) if ended else None)
