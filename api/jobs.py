"""The routes under /v1/jobs."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Blueprint, Response, jsonify, request

from api import body, cancelling, formats
from api.auth import caller, listed_owner
from api.problems import invalid
from api.services import Services
from api.tracing import traceparent
from api.views import page_of
from phi4.errors import Cancelled, Expired, MalformedRequest, ServiceError
from phi4.job import Job, Status
from phi4.log import log
from phi4.params import PARAMS

_log = logging.getLogger(__name__)
#: The longest a request may wait for a job.
_MOST_WAIT_S = 60
#: RFC 7240: names in any case, values with quotes or without.
_WAIT = re.compile(r"(?:^|[,;\s])wait(?:\s*=\s*(\"?)(\d{1,9})\1)?(?:$|[,;\s])", re.IGNORECASE)
_RETRY_AFTER_S = 1


def blueprint(services: Services) -> Blueprint:
    """Make the routes over the services of this process."""
    routes = Blueprint("jobs", __name__, url_prefix="/v1/jobs")

    @routes.post("")
    def submit() -> Response:
        """Accept a job; with `Prefer: wait=n` answer its end when it comes in time."""
        key, seconds = _idempotency_key(), _preferred_wait()
        with services.submit.reserving(caller().owner, key):
            stored = partial(services.stored, owner=caller().owner)
            submission = body.read(request, max_inputs=services.settings.max_inputs, stored=stored)
            accepted = services.submit.accept(
                submission, caller=caller(), idempotency_key=key, traceparent=traceparent()
            )
        job, view, waited = _seen_in_time(services, accepted.job, seconds)
        response = jsonify(view)
        response.status_code = 200 if job.status.is_terminal and seconds is not None else 202
        response.headers["Location"] = f"/v1/jobs/{job.id}"
        if response.status_code == 202:
            response.headers["Retry-After"] = str(_RETRY_AFTER_S)
        if seconds is not None and waited:
            response.headers["Preference-Applied"] = f"wait={seconds}"
        if accepted.replayed:
            response.headers["Idempotent-Replayed"] = "true"
        return response

    @routes.get("")
    def newest() -> Response:
        """List jobs, newest first."""
        limit, after = _int_argument("limit", 20, 1, 100), _after_argument()
        status = _choice_argument("status", [s.value for s in Status])
        job_type = _choice_argument("type", list(PARAMS))
        owner = listed_owner()
        jobs, more = services.store.jobs.newest(owner, limit=limit, after=after, status=status, type=job_type)
        return jsonify(page_of([services.views.in_a_list(j) for j in jobs], more))

    @routes.get("/<job_id>")
    def show(job_id: str) -> Response:
        """Show a job; with `wait` as soon as its status changes."""
        job = live(services, job_id, caller().sees)
        seconds = _int_argument("wait", 0, 0, _MOST_WAIT_S) or None
        include = _choice_argument("include", ["partial", "parts"])
        seen = job.status
        if not seen.is_terminal:
            job, _ = _wait(services, job, seconds, lambda j: j.status != seen)
        return jsonify(services.views.one(job, partial=include == "partial", parts=include == "parts"))

    @routes.get("/<job_id>/result")
    def result(job_id: str) -> Response:
        """Give the result in the format asked for."""
        job = live(services, job_id, caller().sees)
        wanted = _choice_argument("format", list(formats.ALL_FORMATS)) or "json"
        text, content_type = formats.render(services.views.result(job), job.type, wanted)
        return Response(text, content_type=content_type)

    @routes.post("/<job_id>/cancel")
    def cancel(job_id: str) -> Response:
        """Ask a job to stop; a job that ended stays as it is."""
        job = live(services, job_id, caller().sees)
        cancelling.cancel(services, job.id, Cancelled("Cancelled by its owner."))
        return jsonify(services.views.one(services.store.jobs.get(job.id, job.owner)))

    @routes.post("/<job_id>/retry")
    def retry(job_id: str) -> Response:
        """Run a failed or cancelled job again."""
        job = live(services, job_id, caller().sees)
        services.store.jobs.retry(job, most_waiting=services.settings.max_queued_parts)
        services.tickets.wake("prepare")
        job = services.store.jobs.get(job.id, job.owner)
        log(_log, "job retried", attempts=job.attempts, **job.log_context())
        response = jsonify(services.views.one(job))
        response.status_code = 202
        response.headers["Location"] = f"/v1/jobs/{job.id}"
        response.headers["Retry-After"] = str(_RETRY_AFTER_S)
        return response

    @routes.delete("/<job_id>")
    def delete(job_id: str) -> Response:
        """Erase a job: its record, input and result."""
        job = services.store.jobs.get(job_id, caller().sees)
        services.store.jobs.delete(job.id)
        services.blobs.delete_folder(job.id)
        log(_log, "job deleted", **job.log_context())
        return jsonify({"id": job.id, "object": "job", "deleted": True})

    return routes


def live(services: Services, job_id: str, owner: str | None) -> Job:
    """Read a job of `owner` (None: of anybody) that has not expired. Raises `NotFound`, `Expired`."""
    job = services.store.jobs.get(job_id, owner)
    if job.status == Status.EXPIRED:
        raise Expired
    return job


def _seen_in_time(services: Services, job: Job, seconds: int | None) -> tuple[Job, dict[str, Any], bool]:
    """Wait for the end of a job that was accepted, and show it; also tells whether there was room to wait."""
    try:
        seen, waited = _wait(services, job, seconds, _has_ended)
        return seen, services.views.one(seen), waited
    except ServiceError:  # whoever read a refusal now would send the job a second time
        return job, services.views.summary(job), False


def _has_ended(job: Job) -> bool:
    return job.status.is_terminal


def _wait(services: Services, job: Job, seconds: int | None, holds: Callable[[Job], bool]) -> tuple[Job, bool]:
    """Hold the request until `holds`, if there is room for one more that waits; also tells whether there was."""
    if not seconds or holds(job):
        return job, True
    if not services.room_to_wait.acquire(blocking=False):
        return job, False
    try:
        return services.store.changes.wait_until(job, holds, seconds), True
    finally:
        services.room_to_wait.release()


def _preferred_wait() -> int | None:
    match = _WAIT.search(request.headers.get("Prefer", ""))
    return min(int(match.group(2) or _MOST_WAIT_S), _MOST_WAIT_S) if match else None


def _idempotency_key() -> str:
    value = request.headers.get("Idempotency-Key", "")
    if len(value) > 255:
        raise MalformedRequest("Idempotency-Key: at most 255 characters.")
    return value


def _after_argument() -> str:
    """The id that a page begins after; of a job that may be gone. Raises `InvalidRequest`."""
    after = request.args.get("after", "")
    if after and not after.startswith("job_"):
        raise invalid("after", "must be a job's id, such as `last_id` of the page before")
    return after


def _int_argument(name: str, default: int, least: int, most: int) -> int:
    text = request.args.get(name)
    if text is None:
        return default
    # Of bounded length: Python refuses to read thousands of digits.
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not least <= int(text) <= most:
        raise invalid(name, f"must be a whole number from {least} to {most}")
    return int(text)


def _choice_argument(name: str, choices: list[str]) -> str:
    value = request.args.get(name)
    if value is not None and value not in choices:
        raise invalid(name, f"must be one of {', '.join(choices)}")
    return value or ""
