"""Asks a job to end: for its owner, for a client that has left, for a batch that is over."""

from __future__ import annotations

import logging
from contextlib import suppress

from api.services import Services
from phi4 import leftovers
from phi4.errors import Cancelled, Phi4Error
from phi4.log import log

_log = logging.getLogger(__name__)


def cancel(services: Services, job_id: str, why: Cancelled) -> None:
    """Ask a job to end as cancelled, and tell of it; one that has ended stays as it is. Raises `StoreUnavailable`."""
    stopping = services.store.jobs.cancel(job_id, why)
    services.tickets.wake(stopping.wake)
    if stopping.ended is not None:
        log(_log, "job cancelled", **stopping.ended.log_context())
        if stopping.ended.webhook_url:
            services.tickets.wake("webhooks")
        with suppress(Phi4Error):  # else the reaper does it
            leftovers.erase(stopping.ended, services.store, services.blobs)
    elif stopping.status and (job := services.store.jobs.find(job_id)):
        log(_log, f"job {stopping.status}", **job.log_context())
