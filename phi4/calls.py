"""What the client sends and how it is retried: generators that yield what to do and are given what came back.

Every POST carries an Idempotency-Key, so that a retry makes no second job.
"""

from __future__ import annotations

import base64
import json
import math
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from httpx_sse import ServerSentEvent

from phi4.answers import Job

T = TypeVar("T")
#: A path, an http(s) URL that the service fetches, or the bytes themselves.
File = str | Path | bytes
_ENDED = ("completed", "failed", "cancelled", "expired")
_PASSING = (429, 502, 503, 504)
#: The first sending of this request is still being read: its answer comes to whoever asks again.
_IN_FLIGHT = "idempotency_in_flight"
_WAIT_S = 20
#: Before asking again a service that answered at once that nothing is new: it has no place for one more that waits.
_PAUSE_S = 0.5
_RECONNECT_S = 0.5
#: What ends the stream of a job's run.
_LAST_EVENTS = ("result", "error")


class Phi4ApiError(Exception):
    """The service refused a request; `status`, `code` and `errors` are as in its problem details.

    `retry_after` is how many seconds it asks to wait before the next try, if it says so.
    """

    def __init__(self, response: httpx.Response) -> None:
        try:
            problem = dict(response.json())
        except ValueError:
            problem = {}
        self.status = response.status_code
        self.code = str(problem.get("code", "http_error"))
        self.errors = list(problem.get("errors", []))
        after = response.headers.get("Retry-After", "")
        self.retry_after = float(after) if after.isdecimal() else None
        super().__init__(str(problem.get("detail") or f"HTTP {self.status}"))


class JobFailed(Exception):
    """The job ended without a result; `job` has the reason."""

    def __init__(self, job: Job) -> None:
        self.job = job
        super().__init__(f"{job.id} {job.status}: {(job.error or {}).get('message', 'no reason given')}")


@dataclass(frozen=True)
class Send:
    method: str
    path: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sleep:
    seconds: float


#: Yields what to do; is given the response, or the error of a connection.
Plan = Generator[Send | Sleep, Any, T]


def request(send: Send, tries: int) -> Plan[httpx.Response]:
    """Send until something other than a passing trouble comes back."""
    for attempt in range(1, tries + 1):
        came = yield send
        if isinstance(came, httpx.Response) and not _will_pass(came):
            break
        if attempt < tries:
            after = Phi4ApiError(came).retry_after if isinstance(came, httpx.Response) else None
            yield Sleep(0.2 * 2**attempt if after is None else after)
    if not isinstance(came, httpx.Response):
        raise came
    if came.is_error:
        raise Phi4ApiError(came)
    return came


def _will_pass(response: httpx.Response) -> bool:
    return response.status_code in _PASSING or (
        response.status_code == 409 and Phi4ApiError(response).code == _IN_FLIGHT
    )


def submit(
    job_type: str, files: Iterable[File], params: Mapping[str, Any], more: Mapping[str, Any], tries: int
) -> Plan[Job]:
    """Make a job."""
    given, files = dict(more), list(files)
    headers = {"Idempotency-Key": str(given.pop("idempotency_key", None) or uuid.uuid4())}
    fields = {"type": job_type, "params": {k: v for k, v in params.items() if v is not None}} | given
    options: dict[str, Any]
    if files and not any(map(_is_url, files)):
        form = {name: _as_text(value) for name, value in fields.items()}
        options = {"data": form, "files": [("file", _named(file)) for file in files]}
    else:
        options = {"json": fields | ({"input": [_input(file) for file in files]} if files else {})}
    response = yield from request(Send("POST", "/v1/jobs", options | {"headers": headers}), tries)
    return Job.of(response.json())


def _is_url(file: File) -> bool:
    return isinstance(file, str) and file.startswith(("http://", "https://"))


def _as_text(value: Any) -> str:
    if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return ",".join(value)
    return value if isinstance(value, str) else json.dumps(value)


def _named(file: File) -> tuple[str, bytes]:
    return ("input", file) if isinstance(file, bytes) else (shown_name(Path(file)), Path(file).read_bytes())


def shown_name(path: Path) -> str:
    """A file's name as it can be sent: one that is not UTF-8 has marks in place of what is not."""
    return path.name.encode(errors="replace").decode()


def _input(file: File) -> dict[str, Any]:
    if _is_url(file):
        return {"url": file}
    name, content = _named(file)
    return {"filename": name, "data": base64.b64encode(content).decode()}


def get(job_id: str, tries: int) -> Plan[Job]:
    """Look at a job."""
    response = yield from request(Send("GET", f"/v1/jobs/{job_id}"), tries)
    return Job.of(response.json())


def act(method: str, path: str, tries: int) -> Plan[None]:
    """Do something to a job."""
    yield from request(Send(method, path), tries)


def wait(job_id: str, timeout: float | None, tries: int) -> Plan[Job]:
    """Poll until the job has ended; raises TimeoutError, leaving it running."""
    ends, seen = math.inf if timeout is None else time.monotonic() + timeout, ""
    while True:
        asked = time.monotonic()
        held = int(min(_WAIT_S, max(0, ends - asked)))
        query = {"params": {"wait": held}} if held else {}
        job = Job.of((yield from request(Send("GET", f"/v1/jobs/{job_id}", query), tries)).json())
        if job.status in _ENDED:
            return job
        now = time.monotonic()
        if now >= ends:
            raise TimeoutError(f"{job_id} has not ended after {timeout} s")
        if ends - now < 1:  # the service waits for whole seconds only
            yield Sleep(ends - now)
        elif job.status == seen and now - asked < held:
            yield Sleep(_PAUSE_S)
        seen = job.status


class Following:
    """One job's events, over as many connections as they take: what has come, and when to go on after a connection."""

    def __init__(self, job_id: str, tries: int) -> None:
        self.path = f"/v1/jobs/{job_id}/events"
        self.over = False
        self._tries = self._left = tries
        self._seen = ""

    @property
    def headers(self) -> dict[str, str]:
        """What tells the service where to go on."""
        return {"Last-Event-ID": self._seen} if self._seen else {}

    def take(self, event: ServerSentEvent) -> dict[str, Any]:
        """Note an event; gives it as callers get it."""
        self._seen, self._left = event.id or self._seen, self._tries
        self.over = event.event in _LAST_EVENTS
        return {"event": event.event, **event.json()}

    def pause(self, error: httpx.TransportError | Phi4ApiError) -> float:
        """Tell how many seconds to wait before the next connection; raises what ended this one when it is the last."""
        self._left -= 1
        if self._left < 1 or (isinstance(error, Phi4ApiError) and error.status not in _PASSING):
            raise error
        longer = _RECONNECT_S * 2 ** (self._tries - self._left - 1)
        return (isinstance(error, Phi4ApiError) and error.retry_after) or longer


def cut_off() -> httpx.TransportError:
    """Make the error of a stream that ended before its job: a process of the service that ends closes its streams."""
    return httpx.RemoteProtocolError("The stream ended before the job did.")


def result(
    read: Callable[[Mapping[str, Any]], T],
    job_type: str,
    files: Iterable[File],
    params: Mapping[str, Any],
    timeout: float | None,
    tries: int,
) -> Plan[T]:
    """Make a job, wait for it, and read its result; raises `JobFailed`."""
    job = yield from submit(job_type, files, params, {}, tries)
    job = yield from wait(job.id, timeout, tries)
    if job.result is None:
        raise JobFailed(job)
    return read(job.result)
