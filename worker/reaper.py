"""Threads in side workers, one of each active at a time: free what was let fall, expire what is over, sweep blobs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from ulid import ULID

from phi4 import leftovers
from phi4.blobs import Blobs
from phi4.errors import BlobsUnavailable, Phi4Error
from phi4.job import Status, run_folder
from phi4.log import log
from phi4.queue import Tickets
from phi4.store import Store
from worker import metrics
from worker.reports import Reports

_log = logging.getLogger(__name__)
_SWEEP_S = 600.0
#: A folder this young may belong to a request that is still being read.
_YOUNG_S = 3_600.0
#: Who ends a job erases its files at once; after this long nobody does any more.
_LEFT_ALONE_MS = 30_000
#: Tickets sent for one queue in one round at most; the next round sends more.
_MOST_TICKETS = 500


class Reaper:
    """Runs a round every few seconds for as long as this worker holds the lock, and sweeps beside that."""

    def __init__(
        self, store: Store, blobs: Blobs, tickets: Tickets, *, worker: str, every: float, max_deaths: int
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._tickets = tickets
        self._reports = Reports(store, blobs, tickets)
        self._worker = worker
        self._every = every
        self._max_deaths = max_deaths
        self._end = threading.Event()
        self._threads = [
            threading.Thread(target=self._for_ever, args=(name, every, run), name=name, daemon=True)
            for name, every, run in (("reaper", every, self._rounds), ("sweeper", _SWEEP_S, self.sweep))
        ]

    def start(self) -> None:
        """Begin to reap."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End after the round under way."""
        self._end.set()
        ends = time.monotonic() + 10
        for thread in self._threads:
            thread.join(max(0.0, ends - time.monotonic()))

    def round(self) -> bool:
        """Do one round: leases, deadlines, expiry, and tickets that are missing; tells whether more waits."""
        reaped = self._store.work.reap(max_deaths=self._max_deaths)
        for job, unit, worker in reaped.put_back:
            metrics.REAPED.labels("put_back").inc()
            log(_log, "unit put back", level=logging.WARNING, job=job, unit=unit, worker=worker)
        for job in reaped.stopped:
            metrics.REAPED.labels("deadline").inc()
            log(_log, "job past its deadline", **self._context(job))
        for ended in reaped.ended:
            self._reports.tell_end(ended)
        for job in reaped.expired:
            metrics.REAPED.labels("expired").inc()
            self._erase(job)
            log(_log, "job expired", **self._context(job))
        self._erase_leftovers()
        self._send_missing_tickets()
        if reaped.stopped or reaped.expired:
            self._tickets.wake("webhooks")
        return reaped.more

    def sweep(self) -> int:
        """Erase the blobs of jobs that expired or that nobody knows any more; returns how many folders went."""
        old = self._store.now_ms() / 1000 - _YOUNG_S
        gone = 0
        for folder, changed in self._blobs.folders():
            if self._end.is_set():
                break
            if max(changed, _made_at(folder)) < old and self._is_over(folder):
                self._blobs.delete_folder(folder)
                gone += 1
        return gone

    def _context(self, job: str) -> dict[str, Any]:
        found = self._store.jobs.find(job)
        return found.log_context() if found else {"job": job}

    def _erase_leftovers(self) -> None:
        """Erase what is left of jobs that nobody cleaned up after: a worker died, or the reaper ended them."""
        for job_id, run in self._store.work.leftovers(until_ms=self._store.now_ms() - _LEFT_ALONE_MS):
            job = self._store.jobs.find(job_id)
            try:
                if job is not None and job.attempts == run and job.status.is_terminal:
                    leftovers.erase(job, self._store, self._blobs)
                else:  # deleted with all its files, or run again since
                    self._blobs.delete_folder(run_folder(job_id, run))
                    self._store.work.erased(job_id, run)
            except BlobsUnavailable as error:
                log(_log, "leftovers stay for now", level=logging.WARNING, job=job_id, error=error.message)
                self._store.work.put_off(job_id, run, self._store.now_ms())  # the others' turn comes first
                return

    def _erase(self, job: str) -> None:
        try:
            self._blobs.delete_folder(job)
        except BlobsUnavailable as error:
            log(_log, "blobs left to the sweep", level=logging.WARNING, job=job, error=error.message)

    def _is_over(self, folder: str) -> bool:
        if folder.startswith("file_"):
            return self._store.files.find(folder) is None and not self._store.batches.reads(folder)
        job = self._store.jobs.find(folder)
        return job is None or job.status == Status.EXPIRED

    def _send_missing_tickets(self) -> None:
        for queue, waiting in self._store.work.waiting().items():
            if queue == "held":
                continue
            missing = min(self._tickets.missing(queue, waiting), _MOST_TICKETS)
            self._tickets.wake(queue, missing)

    def _rounds(self) -> None:
        """Do rounds until nothing waits; each renews the lock, which another worker takes when this one hangs."""
        while self.round() and not self._end.is_set() and self._holds("reaper", self._every):
            pass

    def _holds(self, name: str, every: float) -> bool:
        return self._store.work.hold_lock(name, self._worker, every * 3 + 5)

    def _for_ever(self, name: str, every: float, run: Callable[[], object]) -> None:
        while not self._end.wait(every):
            try:
                if self._holds(name, every):
                    run()
            except Phi4Error as error:
                log(_log, f"{name} failed", level=logging.WARNING, error=error.message)
            except Exception:
                # Without its reaper the service would forget what a dead worker let fall.
                _log.exception("%s failed", name)


def _made_at(job_id: str) -> float:
    """Tell from its id when a job was made (Unix seconds): object stores keep no times of folders."""
    try:
        return ULID.from_str(job_id.partition("_")[2].upper()).timestamp
    except ValueError:
        return 0.0
