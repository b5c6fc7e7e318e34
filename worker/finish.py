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
from phi4.store import Store
from worker.cache import ResultCache
from worker.reports import Reports

_log = logging.getLogger(__name__)
#: Seconds between the tries to erase a finished job's files while the blob store is away.
_ERASE_WAITS = (0.5, 2.0, 8.0)


class Finish:
    """The last step of every job that has a result."""

    def __init__(self, store: Store, blobs: Blobs, reports: Reports, cache: ResultCache) -> None:
        self._store = store
        self._blobs = blobs
        self._reports = reports
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
        reported = self._store.work.end(unit, "failed" if error else "completed", error=error, result=key)
        self.clean_up(job)
        if error is None:
            self._cache.keep(job)
        self._reports.follow(unit, reported)

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
        reported = self._store.work.reuse(prepare, earlier, key, [one.to_json() for one in inputs])
        self.clean_up(job)
        self._reports.follow(prepare, reported)
        return True

    def fail(self, unit: Unit, error: Phi4Error) -> None:
        """End the job as failed because its result could not be put together."""
        reported = self._store.work.end(unit, "failed", error=error_json(error, "finish"))
        self.clean_up(unit.job)
        self._reports.follow(unit, reported)

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
