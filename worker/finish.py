"""Puts a job's result together from its parts, once, and ends the job."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from phi4 import results
from phi4.blobs import Blobs
from phi4.errors import AllPartsFailed, BlobMissing, Phi4Error
from phi4.job import Input, Job, Part, Unit, error_json
from phi4.store import Store
from phi4.store.work import Reported
from worker.cache import ResultCache
from worker.reports import Reports


@dataclass(frozen=True, slots=True)
class Made:
    """What a job ends with: where its result is stored, or its error."""

    job: Job
    result: str = ""
    error: Mapping[str, Any] | None = None


class Finish:
    """The last step of every job that has a result."""

    def __init__(self, store: Store, blobs: Blobs, reports: Reports, cache: ResultCache) -> None:
        self._store = store
        self._blobs = blobs
        self._reports = reports
        self._cache = cache

    def make(self, unit: Unit) -> Made:
        """Put the result together and store it. Raises `BlobsUnavailable`, `BlobMissing`."""
        job = self._store.jobs.find(unit.job.id) or unit.job
        parts = self._store.jobs.parts(job)
        if (error := _only_errors(parts)) is not None:
            return Made(job, error=error)
        key = f"{job.id}/result-{unit.token}.json"
        self._blobs.put(key, json.dumps(results.build(job, parts, self._blobs), ensure_ascii=False).encode())
        return Made(job, result=key)

    def end(self, unit: Unit, made: Made, again: str) -> Reported:
        """End the job as completed or failed, or as it was told to stop; may be done `again`."""
        status = "failed" if made.error else "completed"
        return self._store.work.end(unit, status, error=made.error, result=made.result, again=again)

    def ended(self, unit: Unit, made: Made, reported: Reported) -> None:
        """Do what follows the end."""
        if made.error is None:
            self._cache.keep(made.job)
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
        known = [
            replace(one, pages=before.pages, seconds=before.seconds)
            for one, before in zip(inputs, earlier.inputs, strict=True)
        ]
        reported = self._store.work.reuse(prepare, earlier, key, [one.to_json() for one in known])
        self._reports.follow(prepare, reported)
        return True

    def fail(self, unit: Unit, error: Phi4Error) -> Reported:
        """End the job as failed because its result could not be put together."""
        reported = self._store.work.end(unit, "failed", error=error_json(error, "finish"))
        self._reports.follow(unit, reported)
        return reported


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
