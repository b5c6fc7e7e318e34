"""Jobs as the API sees them: submit, read, list, stop, delete."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import redis

from phi4.errors import IdempotencyConflict, IdempotencyMismatch, NotFound, NotRetryable, Phi4Error, QueueFull
from phi4.job import Job, NewJob, Part, error_json
from phi4.store.keys import IDEMPOTENCY_LOCK_S, key
from phi4.store.scripts import Scripts, job_of

_PAGE = 200


@dataclass(frozen=True, slots=True)
class Submission:
    """What became of a submission: the job's id, and whether an earlier request had made it already."""

    job_id: str
    replayed: bool


@dataclass(frozen=True, slots=True)
class Stopping:
    """What became of the wish that a job ends."""

    wake: str  #: the queue that its finishing waits in, or ''
    status: str  #: what the job came to by this, or '' when it had ended or been told before
    ended: Job | None  #: the job, if it ended by this


class Jobs:
    """The records of jobs."""

    def __init__(self, client: redis.Redis, scripts: Scripts) -> None:
        self._client = client
        self._scripts = scripts

    def submit(self, job: NewJob, *, most_waiting: int, idempotency_key: str = "", fingerprint: str = "") -> Submission:
        """Write the record and queue its preparation, in one step.

        Raises `QueueFull`, and `IdempotencyMismatch` when the key was used with another `fingerprint`.
        """
        reply = self._scripts.run(
            "submit",
            job.id,
            job.owner,
            json.dumps(job.record()),
            job.cancel_after,
            job.expires_in,
            most_waiting,
            _digest(idempotency_key),
            fingerprint,
        )
        match reply:
            case ["replayed", known] if known != job.id:
                return Submission(known, replayed=True)
            case ["mismatch"]:
                raise IdempotencyMismatch
            case ["full"]:
                raise QueueFull
        return Submission(job.id, replayed=False)

    def lock_idempotency(self, owner: str, idempotency_key: str, nonce: str) -> str | None:
        """Reserve a key for the request that is being read; returns the job it already belongs to, if any.

        Raises `IdempotencyConflict` while another request holds it.
        """
        name = key("idempotency", owner, _digest(idempotency_key))
        if self._client.set(name, f"pending {nonce}", nx=True, ex=IDEMPOTENCY_LOCK_S):
            return None
        seen = cast(str | None, self._client.get(name)) or "pending"
        # The client library sends a command again when its answer got lost: then the reservation is our own.
        if seen == f"pending {nonce}":
            return None
        if seen.startswith("pending"):
            raise IdempotencyConflict
        return seen.split(" ")[0]

    def unlock_idempotency(self, owner: str, idempotency_key: str, nonce: str) -> None:
        """Let go of a key whose request failed; a key that belongs to a job by now stays."""
        self._scripts.run("unlock", owner, _digest(idempotency_key), nonce)

    def get(self, job_id: str, owner: str | None) -> Job:
        """Read one job of `owner` (None: of anybody). Raises `NotFound`, also for another owner's job."""
        job = self.find(job_id)
        if job is None or owner not in (None, job.owner):
            raise NotFound(f"There is no job {job_id!r}.")
        return job

    def find(self, job_id: str) -> Job | None:
        """Read one job, whoever owns it."""
        record = cast(dict[str, str], self._client.hgetall(key("job", job_id)))
        return Job.from_record(record) if "status" in record else None

    def remember(self, job: Job, question: str) -> None:
        """Note that a job has the answer to a question of its owner's, for as long as the job is kept."""
        self._client.set(key("remembered", job.owner, question), job.id, pxat=job.expires_ms)

    def remembered(self, owner: str, question: str) -> Job | None:
        """Find the job that has the answer to a question of this owner's; it may have been deleted since."""
        job_id = cast(str | None, self._client.get(key("remembered", owner, question)))
        return self.find(job_id) if job_id else None

    def statuses(self, job_ids: Sequence[str]) -> list[str | None]:
        """Tell how jobs stand, in one step; None for one that nobody knows."""
        return [status for (status,) in self._told(job_ids, ["status"])]

    def _told(self, job_ids: Sequence[str], fields: Sequence[str]) -> list[list[str | None]]:
        """Read some fields of many jobs in one step."""
        asked = self._client.pipeline(transaction=False)
        for job_id in job_ids:
            asked.hmget(key("job", job_id), fields)
        return cast(list[list[str | None]], asked.execute())

    def parts(self, job: Job) -> list[Part]:
        """Read all parts of a job, in order."""
        fields = cast(dict[str, str], self._client.hgetall(key("units", job.id)))
        return [_part(n, fields) for n in range(job.added)]

    def newest(
        self, owner: str, *, limit: int, after: str = "", status: str = "", type: str = ""
    ) -> tuple[list[Job], bool]:
        """List an owner's jobs, newest first, from after the id `after`; also tells whether there are more."""
        found: list[Job] = []
        for job_id in self._newest_first(owner, after, {"status": status, "type": type}):
            if (job := self.find(job_id)) is None:
                continue
            if len(found) == limit:
                return found, True
            found.append(job)
        return found, False

    def _newest_first(self, owner: str, after: str, wanted: Mapping[str, str]) -> Iterator[str]:
        """List ids of jobs whose fields are as wanted ('': whatever they are): most are not looked at whole."""
        bound = f"({after}" if after else "+"
        while True:
            ids = cast(list[str], self._client.zrevrangebylex(key("index", owner), bound, "-", start=0, num=_PAGE))
            if not ids:
                return
            yield from (id for id, told in zip(ids, self._told(ids, list(wanted)), strict=True) if _fits(told, wanted))
            bound = f"({ids[-1]}"

    def cancel(self, job_id: str, error: Phi4Error) -> Stopping:
        """Ask a job to end as `cancelled`; one that ended already stays as it is."""
        wake, status, ended = self._scripts.run("stop", job_id, "cancelled", json.dumps(error_json(error, "cancel")))
        return Stopping(wake, status, job_of(ended) if ended else None)

    def retry(self, job: Job, *, most_waiting: int) -> None:
        """Run a failed or cancelled job again; doing it twice, or from two places, makes one more run.

        Raises `NotRetryable` in any other state and when the input is not kept, and `QueueFull`.
        """
        if job.status.is_terminal and job.input_retention == "until_done":
            raise NotRetryable("The job's input was erased when it ended (input_retention: until_done).")
        match self._scripts.run("retry", job.id, job.attempts, most_waiting):
            case ["refused", status]:
                message = f"The job is {status}; only one that failed or was cancelled can be run again."
                raise NotRetryable(message, job_status=status)
            case ["full"]:
                raise QueueFull

    def delete(self, job_id: str) -> bool:
        """Erase all that Redis knows of a job; work that still runs can report nothing any more."""
        return bool(self._scripts.run("delete", job_id))

    def position(self, job_id: str, *, most: int = 1_000) -> int | None:
        """Count the units that go before the job's first waiting one (at most `most`); None when nothing waits."""
        ahead = cast(int, self._scripts.run("position", job_id, most))
        return None if ahead < 0 else ahead

    def waits_for_share(self, job: Job) -> bool:
        """Tell whether a job's next part waits for other parts of its share to end."""
        return bool(job.share) and self._client.zscore(key("parked", job.share), job.id) is not None

    def ended(self) -> dict[tuple[str, str], int]:
        """Count the jobs that ended, by type and status."""
        counts = cast(dict[str, str], self._client.hgetall(key("ended")))
        return {cast(tuple[str, str], tuple(name.split(" "))): int(n) for name, n in counts.items()}


def _fits(told: Sequence[str | None], wanted: Mapping[str, str]) -> bool:
    return all(not value or found == value for found, value in zip(told, wanted.values(), strict=True))


def _part(number: int, fields: dict[str, str]) -> Part:
    def of(name: Literal["state", "spec", "out", "error", "tries", "ms"]) -> str:
        return fields.get(f"{number}.{name}", "")

    return Part(
        number=number,
        state=of("state"),
        spec=json.loads(of("spec") or "{}"),
        out=of("out"),
        error=json.loads(of("error")) if of("error") else None,
        tries=int(of("tries") or 0),
        ms=int(of("ms") or 0),
    )


def _digest(idempotency_key: str) -> str:
    """A caller's key may hold anything; its hash is safe inside a Redis key."""
    return hashlib.sha256(idempotency_key.encode()).hexdigest() if idempotency_key else ""
