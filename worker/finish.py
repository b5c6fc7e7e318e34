"""Puts a job's result together from its parts, once, and ends the job."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from typing import Any

from phi4 import results
from phi4.blobs import Blobs
from phi4.errors import AllPartsFailed, BlobMissing, BlobsUnavailable, Phi4Error
from phi4.job import Input, Job, Part, Unit, error_json
from phi4.log import log
from phi4.queue import Tickets
from phi4.store import Store
from worker import metrics
from worker.cache import ResultCache

_log = logging.getLogger(__name__)
#: Seconds between the tries to erase a finished job's files while the blob store is away.
_ERASE_WAITS = (0.5, 2.0, 8.0)


class Finish:
    """The last step of every job that has a result, and what is told of every job's end."""

    def __init__(self, store: Store, blobs: Blobs, tickets: Tickets, cache: ResultCache) -> None:
        self._store = store
        self._blobs = blobs
        self._tickets = tickets
        self._cache = cache

    def run(self, unit: Unit) -> None:
        """Write the result and end the job as completed or failed, or as it was told to stop."""
        job = self._store.jobs.find(unit.job.id) or unit.job
        parts = self._store.jobs.parts(job)
        error = _only_errors(parts)
        key = ""
        if error is None:
            key = f"{job.id}/result-{unit.token}.json"
            self._blobs.put(key, json.dumps(results.build(job, parts, self._blobs), ensure_ascii=False).encode())
        self._store.work.end(unit, "failed" if error else "completed", error=error, result=key)
        if error is None:
            self._cache.keep(job)
        self.clean_up(job)

    def from_earlier(self, prepare: Unit, inputs: Sequence[Input]) -> bool:
        """End a job with an earlier one's result, if there is one that answers it; says whether there was."""
        job = prepare.job
        earlier = self._cache.find(job, inputs)
        if earlier is None:
            return False
        key = f"{job.id}/result-{prepare.token}.json"
        try:
            self._blobs.put(key, self._blobs.get(earlier.result))
        except BlobMissing:  # the earlier job was deleted in between
            return False
        self._tickets.wake(self._store.work.reuse(prepare, earlier, key, [one.to_json() for one in inputs]))
        self.clean_up(job)
        self.tell_if_ended(job)
        return True

    def fail(self, unit: Unit, error: Phi4Error) -> None:
        """End the job as failed because its result could not be put together."""
        self._store.work.end(unit, "failed", error=error_json(error, "finish"))
        self.clean_up(unit.job)

    def tell_if_ended(self, job: Job) -> Job | None:
        """Log and count a job's end, and have its webhooks sent; nothing when it goes on. Gives the job as it is."""
        now = self._store.jobs.find(job.id)
        if now is None or not now.status.is_terminal:
            return now
        if now.webhook_url:
            self._tickets.wake("webhooks")
        metrics.JOB_SECONDS.labels(now.type, now.status).observe((now.ended_ms - now.queued_ms) / 1000)
        code = {"code": now.error["code"]} if now.error else {}
        log(_log, f"job {now.status}", **code, **now.log_context())
        return now

    def clean_up(self, job: Job) -> None:
        """Drop what only the making of the result needed; the job has ended, whatever becomes of that."""
        for wait in _ERASE_WAITS:
            try:
                self._erase(job)
                return
            except BlobsUnavailable:
                time.sleep(wait)
        log(_log, "blobs stay until the job expires", level=logging.WARNING, **job.log_context())

    def _erase(self, job: Job) -> None:
        self._blobs.delete_folder(job.scratch)
        if job.input_retention == "until_done":
            for one in job.inputs:
                self._blobs.delete(one.blob)


def _only_errors(parts: Sequence[Part]) -> dict[str, Any] | None:
    """The job's error when no part gave an answer: the parts' own when it is the same for all."""
    if not parts or any(p.state == "done" for p in parts):
        return None
    errors = [p.error for p in parts if p.error]
    if errors and len({e["code"] for e in errors}) == 1:
        return dict(errors[0])
    return error_json(
        AllPartsFailed(f"All {len(parts)} parts failed; the first: {errors[0]['message'] if errors else '?'}"), "run"
    )
