"""Accepts a job: stores its inputs, then writes its record and queues it in one step."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from api.auth import Caller
from api.body import Submission, Upload, media_type
from api.problems import invalid
from phi4.blobs import Blobs
from phi4.errors import NoWorkerForType
from phi4.job import Input, Job, NewJob, Priority, infer_queue, new_id, trace_id
from phi4.log import log
from phi4.params import MODALITY, JobType
from phi4.queue import Tickets
from phi4.settings import Settings
from phi4.store import LOCAL, Store

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The job a submission led to; `replayed` when an earlier request with the same key had made it."""

    job: Job
    replayed: bool


class Submit:
    """Turns checked submissions into jobs."""

    def __init__(self, settings: Settings, store: Store, blobs: Blobs, tickets: Tickets) -> None:
        self._settings = settings
        self._store = store
        self._blobs = blobs
        self._tickets = tickets

    def accept(self, submission: Submission, *, caller: Caller, idempotency_key: str, traceparent: str) -> Accepted:
        """Make a job of a submission.

        Raises `QueueFull`, `StorageFull`, `UnsupportedMedia`, `EmptyInput`, `IdempotencyMismatch`.
        """
        self._check(submission, caller.owner)
        job_id = new_id("job")
        try:
            return self._make(job_id, submission, caller, idempotency_key, traceparent)
        except BaseException:
            self._blobs.delete_folder(job_id)
            raise

    def _make(
        self, job_id: str, submission: Submission, caller: Caller, idempotency_key: str, traceparent: str
    ) -> Accepted:
        self._blobs.check_room()
        request = submission.request
        inputs = tuple(self._store_input(job_id, request.type, n, u) for n, u in enumerate(submission.uploads))
        job = NewJob(
            id=job_id,
            owner=caller.owner,
            type=request.type,
            params=submission.params,
            inputs=inputs,
            priority=request.priority,
            metadata=request.metadata,
            webhook_url=request.webhook_url or "",
            webhook_events=tuple(request.webhook_events),
            input_retention=request.input_retention,
            cancel_after=request.cancel_after or 0,
            expires_in=request.expires_in,
            window=self._settings.job_window,
            share=caller.share(request.type),
            traceparent=traceparent,
        )
        made = self._store.jobs.submit(
            job,
            most_waiting=self._settings.max_queued_parts,
            idempotency_key=idempotency_key,
            fingerprint=_fingerprint(job),
        )
        if made.replayed:
            self._blobs.delete_folder(job_id)
        else:
            self._tickets.wake("prepare")
            log(_log, "job queued", job=job.id, type=job.type, owner=job.owner, trace=trace_id(traceparent))
        return Accepted(self._store.jobs.get(made.job_id, job.owner), made.replayed)

    def _store_input(self, job_id: str, job_type: JobType, number: int, upload: Upload) -> Input:
        if upload.stream is None:
            return Input(url=upload.url, filename=upload.filename)
        mime = media_type(job_type, upload.stream, upload.filename)
        blob = f"{job_id}/input-{number}"
        length, sha256 = self._blobs.put_stream(blob, upload.stream)
        return Input(blob=blob, filename=upload.filename, media_type=mime, bytes=length, sha256=sha256)

    def _check(self, submission: Submission, owner: str) -> None:
        request = submission.request
        if request.webhook_url:
            self._check_secret(owner)
        if self._settings.reject_unserved and not self.is_served(request.type, request.priority):
            raise NoWorkerForType

    def _check_secret(self, owner: str) -> None:
        if owner == LOCAL and not self._settings.webhook_secret:
            raise invalid("webhook_url", "this service has no secret to sign with; set PHI4_WEBHOOK_SECRET")
        if owner != LOCAL and not self._store.access.webhook_secrets(owner):
            raise invalid("webhook_url", f"{owner} has no secret to sign with; `phi4 keys webhook-secret` makes one")

    def is_served(self, job_type: JobType, priority: Priority) -> bool:
        """Tell whether a live worker takes this type and priority."""
        queue = infer_queue(MODALITY[job_type], priority)
        return any(queue in w.queues and w.serves_engine for w in self._store.workers.alive())

    @contextmanager
    def reserving(self, owner: str, idempotency_key: str) -> Iterator[None]:
        """Hold an idempotency key while its first request is read and worked on. Raises `IdempotencyConflict`."""
        if not idempotency_key:
            yield
            return
        nonce = new_id("lock")
        self._store.jobs.lock_idempotency(owner, idempotency_key, nonce)
        try:
            yield
        finally:
            self._store.jobs.unlock_idempotency(owner, idempotency_key, nonce)


def _fingerprint(job: NewJob) -> str:
    """Tell two submissions apart by all that the caller chose."""
    chosen = job.record() | {"cancel_after": str(job.cancel_after), "expires_in": str(job.expires_in)}
    chosen["inputs"] = json.dumps([[i.url, i.sha256, i.filename] for i in job.inputs])
    # What the caller did not choose, or what changes with a key that is replaced.
    for name in ("window", "share", "share_most", "traceparent", "v"):
        del chosen[name]
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()
