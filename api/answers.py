"""Runs the job behind a request of another API's shape, and ends it when nobody waits for its answer any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from flask import request

from api import body, cancelling
from api.auth import caller
from api.body import Upload
from api.events import has_left
from api.schemas import JobRequest
from api.services import Services
from api.tracing import traceparent
from phi4.errors import (
    Cancelled,
    NoWorkerForType,
    Phi4Error,
    ServiceError,
    TooManyWaiting,
    UnknownModel,
    UnsupportedMedia,
)
from phi4.job import Job
from phi4.params import JobType

#: How often a waiting request looks whether its client is still there.
_LOOK_S = 0.5
#: How long a process that was told to end goes on waiting; gunicorn gives its requests 30 s.
_GRACE_S = 20.0
_LEFT = "The client went away."


def check_model(services: Services, name: str, *others: str) -> None:
    """Check that a request names the model of this service, or another name it goes by. Raises `UnknownModel`."""
    settings = services.settings
    if name not in (settings.served_name, settings.checkpoint, *others):
        raise UnknownModel(f"The model {name[:200]!r} does not exist; this service serves {settings.served_name!r}.")


def json_body() -> dict[str, Any]:
    """Read the request's JSON. Raises `MalformedRequest`, `UnsupportedMedia`."""
    if request.mimetype != "application/json":
        raise UnsupportedMedia(f"Send application/json, not {request.mimetype or 'an untyped body'}.")
    return body.read_json(body.whole(request))


@contextmanager
def place(room: threading.Semaphore) -> Iterator[None]:
    """Take a place among those that may hold a thread. Raises `TooManyWaiting`."""
    if not room.acquire(blocking=False):
        raise TooManyWaiting
    try:
        yield
    finally:
        room.release()


def submit(
    services: Services,
    job_type: JobType,
    params: Mapping[str, Any],
    uploads: Sequence[Upload],
    *,
    metadata: Mapping[str, str] | None = None,
) -> Job:
    """Make the job of a request; its input is erased when it ends.

    Raises what a submission does, and `NoWorkerForType` when nobody would work on it now.
    """
    job = JobRequest.model_validate(
        {
            "type": job_type,
            "params": params,
            "metadata": metadata or {},
            "input_retention": "until_done",
            "cancel_after": services.settings.request_seconds,
        }
    )
    submission = body.submission(job, uploads, max_inputs=services.settings.max_inputs)
    if not services.submit.is_served(submission):
        raise NoWorkerForType
    accepted = services.submit.accept(submission, caller=caller(), idempotency_key="", traceparent=traceparent())
    return accepted.job


def wait(services: Services, job: Job) -> Job:
    """Hold the request until its job has ended.

    Raises `Cancelled` when the client has left and `ServiceError` when this process ends; the job is cancelled then.
    """
    watch = Watch(services, job)
    while not job.status.is_terminal:
        job = services.store.changes.wait_until(job, lambda j: j.status.is_terminal, _LOOK_S)
        if not job.status.is_terminal:
            watch.look()
    return job


class Watch:
    """Looks whether the answer of a job is still wanted: its client is there, and this process is not to end."""

    def __init__(self, services: Services, job: Job) -> None:
        self._services = services
        self._job = job
        self._connection = request.environ.get("gunicorn.socket")
        self._ends = 0.0

    def look(self) -> None:
        """Cancel the job and raise `Cancelled` or `ServiceError` when its answer is not wanted any more."""
        if has_left(self._connection):
            self.cancel()
            raise Cancelled(_LEFT)
        if self._services.closing.is_set():
            self._ends = self._ends or time.monotonic() + _GRACE_S
            if time.monotonic() > self._ends:
                self.cancel()
                raise ServiceError("This process of the service ends; send the request again.")

    def cancel(self) -> None:
        """Cancel the job; one that has ended stays as it is."""
        try:
            cancelling.cancel(self._services, self._job.id, Cancelled(_LEFT))
        except Phi4Error:  # Redis is away; its deadline will end the job
            return
