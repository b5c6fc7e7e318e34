"""Puts a job's result together from its parts, once, and ends the job."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from phi4 import results
from phi4.blobs import Blobs
from phi4.errors import AllPartsFailed, BlobMissing, Phi4Error
from phi4.job import Input, Part, Unit, error_json
from phi4.store import Store
from worker.cache import ResultCache
from worker.reports import Reports


class Finish:
    """The last step of every job that has a result."""

    def __init__(self, store: Store, blobs: Blobs, reports: Reports, cache: ResultCache) -> None:
        self._store = store
        self._blobs = blobs
        self._reports = reports
        self._cache = cache

    def run(self, unit: Unit, again: str) -> None:
        """Write the result and end the job as completed or failed, or as it was told to stop.

        Done `again`, under the same word, after its answer got lost, it goes on where it was.
        """
        job = self._store.jobs.find(unit.job.id) or unit.job
        parts = self._store.jobs.parts(job)
        error = _only_errors(parts)
        key = ""
        if error is None:
            key = f"{job.id}/result-{unit.token}.json"
            self._blobs.put(key, json.dumps(results.build(job, parts, self._blobs), ensure_ascii=False).encode())
        reported = self._store.work.end(unit, "failed" if error else "completed", error=error, result=key, again=again)
        if error is None:
            self._cache.keep(job)
        self._reports.follow(unit, reported)

    def from_earlier(self, prepare: Unit, inputs: Sequence[Input]) -> bool:
        """End a job with an earlier one's result, if there is one that answers it; says whether there was.

        Not when an earlier try to prepare it has added parts: they may be running by now.
        """
        job = prepare.job
        earlier = self._cache.find(job, inputs) if not job.added else None
        if earlier is None:
            return False
        key = f"{job.id}/result-{prepare.token}.json"
        try:
            self._blobs.put(key, self._blobs.get(earlier.result))
        except BlobMissing:  # the earlier job was deleted in between
            return False
        reported = self._store.work.reuse(prepare, earlier, key, [one.to_json() for one in inputs])
        self._reports.follow(prepare, reported)
        return True

    def fail(self, unit: Unit, error: Phi4Error) -> None:
        """End the job as failed because its result could not be put together."""
        self._reports.follow(unit, self._store.work.end(unit, "failed", error=error_json(error, "finish")))


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
