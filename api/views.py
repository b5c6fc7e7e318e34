"""Shows a job as the API promises it: OpenAI's words, whole seconds, links."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from phi4 import results
from phi4.blobs import Blobs
from phi4.errors import BlobMissing, NoResult, NotFinished
from phi4.job import Job, Part, Status
from phi4.params import UNIT
from phi4.store import Store

#: What a caller need not tell apart has one name.
_STATES = {"held": "waiting", "ready": "waiting", "done": "completed"}
#: Counting further than this costs more than it tells.
_MOST_AHEAD = 1_000

#: What a caller wrote or asked for at any length; a job shown alone has it.
_LONG_PARAMS = ("messages", "response_schema")


class Views:
    """Reads what a view needs beside the record: the queue, and the result."""

    def __init__(self, store: Store, blobs: Blobs) -> None:
        self._store = store
        self._blobs = blobs

    def one(self, job: Job, *, partial: bool = False, parts: bool = False) -> dict[str, Any]:
        """Show a job with its place in the queue and its result.

        `partial` shows the result so far of one that runs, `parts` how each part fared.
        """
        view = self.summary(job)
        if job.status in (Status.QUEUED, Status.IN_PROGRESS) and (queue := self._queue(job)):
            view["queue"] = queue
        if job.status == Status.COMPLETED:
            view["result"] = self.result(job)
        elif partial and job.status != Status.EXPIRED:
            view["result"] = self._partial(job)
        if parts:
            view["parts"] = [_part(p) for p in self._store.jobs.parts(job)]
        return view

    def in_a_list(self, job: Job) -> dict[str, Any]:
        """Show a job among others: without the params that may be long."""
        view = self.summary(job)
        return view | {"params": {name: value for name, value in view["params"].items() if name not in _LONG_PARAMS}}

    def summary(self, job: Job) -> dict[str, Any]:
        """Show a job from its record alone."""
        view: dict[str, Any] = {
            "id": job.id,
            "object": "job",
            "type": job.type,
            "status": job.status.value,
            "created_at": job.created_ms // 1000,
            "started_at": _seconds(job.started_ms),
            "completed_at": _seconds(job.ended_ms),
            "expires_at": job.expires_ms // 1000,
            "progress": {
                "completed": job.done + job.failed,
                "total": job.expected if job.prepared_ms else job.expected or None,
                "unit": UNIT[job.type],
            },
            "attempts": job.attempts,
            "model": job.model or None,
            "engine": job.engine or None,
            "priority": job.priority,
            "params": dict(job.params),
            "metadata": dict(job.metadata),
            "input": [_input(i.to_json()) for i in job.inputs],
            "usage": {name: _number(value) for name, value in job.usage.items()},
            "timings": timings(job),
            "links": _links(job.id),
        }
        if job.cached_from:
            view |= {"cached": True, "cached_from": job.cached_from}
        if job.error:
            view["error"] = dict(job.error)
        return view

    def result(self, job: Job) -> dict[str, Any]:
        """Read the result of a job. Raises `NotFinished`, `NoResult`, `BlobMissing`."""
        if not job.status.is_terminal:
            raise NotFinished(job_status=job.status.value)
        if job.status != Status.COMPLETED:
            raise NoResult(
                f"The job is {job.status.value} and has no result.", job_status=job.status.value, error=job.error
            )
        return results.read_answer(self._blobs, job.result)

    def _partial(self, job: Job) -> dict[str, Any]:
        try:
            if job.result:
                return results.read_answer(self._blobs, job.result)
            parts = [p for p in self._store.jobs.parts(job) if p.state in ("done", "failed")]
            return results.build(job, parts, self._blobs) if parts else {}
        except BlobMissing:  # the job ended in between, and its parts were put together
            return {}

    def _queue(self, job: Job) -> dict[str, Any]:
        ahead = self._store.jobs.position(job.id, most=_MOST_AHEAD)
        queue: dict[str, Any] = {} if ahead is None else {"position": ahead}
        if ahead is not None and ahead >= _MOST_AHEAD:
            queue["position_is_at_least"] = True
        if job.status == Status.QUEUED and not self._is_served(job):
            queue["reason"] = "no_worker_for_type"
        elif ahead is None and self._store.jobs.waits_for_share(job):
            queue["reason"] = "in_flight_limit"
        return queue

    def _is_served(self, job: Job) -> bool:
        return any(job.queue in w.queues and w.serves_engine for w in self._store.workers.alive())


def page_of(jobs: Sequence[dict[str, Any]], has_more: bool) -> dict[str, Any]:
    """Show a list as OpenAI does."""
    first, last = (jobs[0]["id"], jobs[-1]["id"]) if jobs else (None, None)
    return {"object": "list", "data": list(jobs), "has_more": has_more, "first_id": first, "last_id": last}


def timings(job: Job) -> dict[str, int]:
    """Say in milliseconds how long a job waited, was prepared, and ran; what has not happened yet is left out."""
    times: dict[str, int] = {}
    if job.preparing_ms:
        waited = job.preparing_ms - job.queued_ms
        if job.started_ms and job.prepared_ms:
            waited += max(0, job.started_ms - job.prepared_ms)
        times["queued_ms"] = waited
    if job.prepared_ms and job.preparing_ms:
        times["prepare_ms"] = job.prepared_ms - job.preparing_ms
    if job.started_ms and job.ended_ms:
        times["run_ms"] = job.ended_ms - job.started_ms
    return times


def _part(part: Part) -> dict[str, Any]:
    where = {name: part.spec[name] for name in ("input", "page", "start", "end") if name in part.spec}
    state = _STATES.get(part.state, part.state)
    shown: dict[str, Any] = {"number": part.number, "state": state, "retries": part.tries, **where}
    return shown | ({"run_ms": part.ms} if part.ms else {}) | ({"error": dict(part.error)} if part.error else {})


def _input(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "blob"}


def _links(job_id: str) -> dict[str, str]:
    here = f"/v1/jobs/{job_id}"
    return {
        "self": here,
        "cancel": f"{here}/cancel",
        "result": f"{here}/result",
        "events": f"{here}/events",
    }


def _seconds(milliseconds: int) -> int | None:
    return milliseconds // 1000 if milliseconds else None


def _number(value: float) -> int | float:
    return int(value) if value == int(value) else round(value, 3)
