"""Does what follows a report to the store: queues are woken; a job that it ended is told of, and its files erased."""

from __future__ import annotations

import logging
from contextlib import suppress

from phi4 import leftovers
from phi4.blobs import Blobs
from phi4.errors import Phi4Error
from phi4.job import Job, Unit
from phi4.log import log
from phi4.queue import Tickets
from phi4.store import Store
from phi4.store.work import Reported
from worker import metrics

_log = logging.getLogger(__name__)


class Reports:
    """What every report on a unit is followed by, by whoever made it."""

    def __init__(self, store: Store, blobs: Blobs, tickets: Tickets) -> None:
        self._store = store
        self._blobs = blobs
        self._tickets = tickets

    def follow(self, unit: Unit, reported: Reported) -> None:
        """Wake who has work now; if this was the job's end, tell of it and erase what is left."""
        self._tickets.wake(unit.job.queue, reported.let_in)
        self._tickets.wake(reported.wake)
        if reported.ended is not None:
            self.tell_end(reported.ended)
            self._erase(reported.ended)

    def tell_end(self, job: Job) -> None:
        """Log and count a job that has just ended, and have its webhooks sent; `job` as it was then."""
        if job.webhook_url:
            self._tickets.wake("webhooks")
        metrics.JOB_SECONDS.labels(job.type, job.status).observe((job.ended_ms - job.queued_ms) / 1000)
        code = {"code": job.error["code"]} if job.error else {}
        log(_log, f"job {job.status}", **code, **job.log_context())

    def _erase(self, job: Job) -> None:
        with suppress(Phi4Error):  # else the reaper does it
            leftovers.erase(job, self._store, self._blobs)
