"""Does what follows a report to the store: queues are woken, and a job's end is told, by whose report it was."""

from __future__ import annotations

import logging

from phi4.job import Unit
from phi4.log import log
from phi4.queue import Tickets
from phi4.store import Store
from phi4.store.work import Reported
from worker import metrics

_log = logging.getLogger(__name__)


class Reports:
    """What every report on a unit is followed by."""

    def __init__(self, store: Store, tickets: Tickets) -> None:
        self._store = store
        self._tickets = tickets

    def follow(self, unit: Unit, reported: Reported) -> None:
        """Wake who has work now, and tell of the job's end if this was it."""
        self._tickets.wake(unit.job.queue, reported.let_in)
        self._tickets.wake(reported.wake)
        if reported.ended:
            self.tell_end(unit.job.id)

    def tell_end(self, job_id: str) -> None:
        """Log and count a job that has just ended, and have its webhooks sent; nothing when it was deleted since."""
        job = self._store.jobs.find(job_id)
        if job is None:
            return
        if job.webhook_url:
            self._tickets.wake("webhooks")
        metrics.JOB_SECONDS.labels(job.type, job.status).observe((job.ended_ms - job.queued_ms) / 1000)
        code = {"code": job.error["code"]} if job.error else {}
        log(_log, f"job {job.status}", **code, **job.log_context())
