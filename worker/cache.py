"""Finds the earlier job that asked the same as a new one: the same bytes, params, model and owner."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress

from phi4 import __version__
from phi4.errors import ServiceError
from phi4.job import Input, Job, Status
from phi4.settings import Settings
from phi4.store import Store
from worker import metrics


class ResultCache:
    """Answers that may be given again. An answer is one's own, and goes with the job that it came from.

    Which weights answered is told by this process's settings: processes of one service share theirs.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._on = settings.result_cache
        self._made_by = (__version__, settings.checkpoint, settings.checkpoint_revision, settings.fp8)

    def find(self, job: Job, inputs: Sequence[Input]) -> Job | None:
        """Find a completed job whose result answers this one, made by an engine that would be asked now."""
        if not self._may_be_known(job):
            return None
        earlier = self._earlier(job, inputs)
        metrics.CACHE.labels("miss" if earlier is None else "hit").inc()
        return earlier

    def _earlier(self, job: Job, inputs: Sequence[Input]) -> Job | None:
        earlier = self._store.jobs.remembered(job.owner, self._question(job, inputs))
        if earlier is None or earlier.status != Status.COMPLETED:
            return None
        alive = [w for w in self._store.workers.alive() if w.serves_engine and job.queue in w.queues]
        return earlier if any((w.engine, w.model) == (earlier.engine, earlier.model) for w in alive) else None

    def keep(self, job: Job) -> None:
        """Remember a job that completed with all of its parts, for as long as its result is kept.

        One that cannot be remembered is asked again some day, which is no reason to fail.
        """
        if self._may_be_known(job) and not job.failed:
            with suppress(ServiceError):
                self._store.jobs.remember(job, self._question(job, job.inputs))

    def _may_be_known(self, job: Job) -> bool:
        """Whether asking again would give the same: chance without a seed gives something else each time."""
        is_chance = job.params.get("temperature", 0.0) > 0 and job.params.get("seed") is None
        return self._on and bool(job.cache) and not is_chance

    def _question(self, job: Job, inputs: Sequence[Input]) -> str:
        asked = [*self._made_by, job.type, dict(job.params), [one.sha256 for one in inputs]]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
