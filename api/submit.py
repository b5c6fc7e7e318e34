"""Accepts a job: stores its inputs, then writes its record and queues it in one step."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from api.auth import Caller
from api.body import Submission, Upload, media_type
from api.problems import invalid
from phi4.blobs import Blobs
from phi4.errors import IdempotencyConflict, NoWorkerForType, StoreUnavailable
from phi4.job import Input, Job, NewJob, infer_queue, input_blob, new_id, trace_id
from phi4.log import log
from phi4.params import modality
from phi4.queue import Tickets
from phi4.settings import Settings
from phi4.store import LOCAL, Store
from phi4.store import Submission as Made

_log = logging.getLogger(__name__)


#: An owner, an idempotency key, and the nonce of the request that reserves it.
_Reservation = tuple[str, str, str]
#: Reservations remembered because Redis was away when their requests ended; each is gone after a minute anyway.
_MOST_UNRELEASED = 1_000


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
        self._unreleased = deque[_Reservation](maxlen=_MOST_UNRELEASED)

    def accept(self, submission: Submission, *, caller: Caller, idempotency_key: str, traceparent: str) -> Accepted:
        """Make a job of a submission, and read it. Raises as `make` does."""
        made = self.make(submission, caller=caller, idempotency_key=idempotency_key, traceparent=traceparent)
        return Accepted(self._store.jobs.get(made.job_id, caller.owner), made.replayed)

    def make(self, submission: Submission, *, caller: Caller, idempotency_key: str, traceparent: str) -> Made:
        """Make a job of a submission.

        Raises `QueueFull`, `StorageFull`, `UnsupportedMedia`, `EmptyInput`, `IdempotencyMismatch`.
        """
        self._check(submission, caller.owner)
        self._blobs.check_room()
        # Lists are in the order of the ids, and the sweeper reads their age: machines may disagree about the time.
        job_id = new_id("job", self._store.now_ms())
        job = self._store_inputs(job_id, submission, caller, traceparent)
        made = self._submit(job, idempotency_key)
        if made.replayed:
            self._blobs.delete_folder(job.id)
        else:
            self._tickets.wake("prepare")
            log(_log, "job queued", job=job.id, type=job.type, owner=job.owner, trace=trace_id(traceparent))
        return made

    def _store_inputs(self, job_id: str, submission: Submission, caller: Caller, traceparent: str) -> NewJob:
        request = submission.request
        try:
            inputs = tuple(self._store_input(job_id, submission, n, u) for n, u in enumerate(submission.uploads))
        except BaseException:
            self._blobs.delete_folder(job_id)
            raise
        return NewJob(
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
            cache=request.cache,
            window=self._settings.job_window,
            share=caller.share(request.type),
            traceparent=traceparent,
        )

    def _submit(self, job: NewJob, idempotency_key: str) -> Made:
        try:
            return self._store.jobs.submit(
                job,
                most_waiting=self._settings.max_queued_parts,
                idempotency_key=idempotency_key,
                fingerprint=_fingerprint(job),
            )
        except StoreUnavailable:
            # Perhaps the job was made and only the answer got lost. If not, the sweeper erases what nobody knows.
            raise
        except BaseException:
            self._blobs.delete_folder(job.id)
            raise

    def _store_input(self, job_id: str, submission: Submission, number: int, upload: Upload) -> Input:
        if upload.stream is None:
            return Input(url=upload.url, filename=upload.filename)
        mime = media_type(submission, number, upload.stream)
        blob = input_blob(job_id, number)
        length, sha256 = self._blobs.put_stream(blob, upload.stream)
        return Input(blob=blob, filename=upload.filename, media_type=mime, bytes=length, sha256=sha256)

    def _check(self, submission: Submission, owner: str) -> None:
        request = submission.request
        if request.webhook_url:
            self._check_secret(owner)
        if self._settings.reject_unserved and not self.is_served(submission):
            raise NoWorkerForType

    def _check_secret(self, owner: str) -> None:
        if owner == LOCAL and not self._settings.webhook_secret:
            raise invalid("webhook_url", "this service has no secret to sign with; set PHI4_WEBHOOK_SECRET")
        if owner != LOCAL and not self._store.access.webhook_secrets(owner):
            raise invalid("webhook_url", f"{owner} has no secret to sign with; `phi4 keys webhook-secret` makes one")

    def is_served(self, submission: Submission) -> bool:
        """Tell whether a live worker takes such a job."""
        request = submission.request
        queue = infer_queue(modality(request.type, submission.params), request.priority)
        return any(queue in w.queues and w.serves_engine for w in self._store.workers.alive())

    @contextmanager
    def reserving(self, owner: str, idempotency_key: str) -> Iterator[None]:
        """Hold an idempotency key while its first request is read and worked on. Raises `IdempotencyConflict`."""
        if not idempotency_key:
            yield
            return
        mine = (owner, idempotency_key, new_id("lock"))
        self._lock(mine)
        try:
            yield
        finally:
            self._unlock(mine)

    def _lock(self, mine: _Reservation) -> None:
        jobs = self._store.jobs
        try:
            try:
                jobs.lock_idempotency(*mine)
            except IdempotencyConflict:
                ended = [one for one in tuple(self._unreleased) if one[:2] == mine[:2]]
                if not ended:
                    raise
                for one in ended:
                    jobs.unlock_idempotency(*one)
                jobs.lock_idempotency(*mine)
        except StoreUnavailable:
            self._unreleased.append(mine)
            raise

    def _unlock(self, mine: _Reservation) -> None:
        try:
            self._store.jobs.unlock_idempotency(*mine)
        except StoreUnavailable:
            self._unreleased.append(mine)


def _fingerprint(job: NewJob) -> str:
    """Tell two submissions apart by all that the caller chose."""
    chosen = job.record() | {"cancel_after": str(job.cancel_after), "expires_in": str(job.expires_in)}
    chosen["inputs"] = json.dumps([[i.url, i.sha256, i.filename] for i in job.inputs])
    # What the caller did not choose, or what changes with a key that is replaced.
    for name in ("window", "share", "share_most", "traceparent", "v"):
        del chosen[name]
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()
