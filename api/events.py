"""GET /v1/jobs/{id}/events: what happens to a job, as Server-Sent Events."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import Any

from flask import Blueprint, Response, request

from api.auth import caller
from api.jobs import live
from api.problems import invalid
from api.services import Services
from phi4.errors import BlobMissing, Expired, NoResult, NotFinished, NotFound, Phi4Error, TooManyStreams
from phi4.job import Job, error_json
from phi4.params import UNIT
from phi4.store import Event

#: Proxies and clients drop a connection that says nothing; a comment says that there is nothing to say.
_HEARTBEAT_S = 15.0
#: How soon a client should come back after a connection that broke, in milliseconds.
_RECONNECT_MS = 1_000
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def blueprint(services: Services) -> Blueprint:
    """Make the route over the services of this process."""
    routes = Blueprint("events", __name__, url_prefix="/v1/jobs")

    @routes.get("/<job_id>/events")
    def events(job_id: str) -> Response:
        """Stream a job's events from the beginning, or from after the last one that the client has."""
        job = live(services, job_id, caller().sees)
        after = _after()
        if job.status.is_terminal and after and not services.store.events.read(job.id, after, most=1)[1]:
            # Nothing is left to say, and this status keeps browsers from asking again.
            return Response(status=204)
        if request.method == "HEAD":
            return Response(mimetype="text/event-stream", headers=_HEADERS)
        if not services.room_for_streams.acquire(blocking=False):
            raise TooManyStreams
        stream = _Stream(services, job, after, request.environ.get("gunicorn.socket"))
        response = Response(stream.chunks(), mimetype="text/event-stream", headers=_HEADERS)
        response.call_on_close(services.room_for_streams.release)
        return response

    return routes


def _after() -> int:
    """The number of the last event that the client has: from the header of a reconnecting one, else the argument."""
    header = request.headers.get("Last-Event-ID", "").strip()
    text = header or request.args.get("after", "0")
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise invalid("Last-Event-ID" if header else "after", "must be the id of an event")
    return int(text)


class _Stream:
    """One client's stream; it holds a thread until its job's run ends, its client leaves, or the process ends."""

    def __init__(self, services: Services, job: Job, after: int, connection: Any) -> None:
        self._services = services
        self._job = job
        self._after = after
        self._connection = connection

    def chunks(self) -> Iterator[str]:
        """Give the stream piece by piece."""
        # No blank line here nor after a comment: some clients take it for the end of an event, and tell an empty one.
        yield f"retry: {_RECONNECT_MS}\n"
        said, ended = time.monotonic(), False
        for event in self._services.store.events.follow(self._job.id, self._after):
            if self._services.closing.is_set():
                return
            if event is not None:
                yield _frame(event.name, self._data(event), event.number)
                said, ended = time.monotonic(), event.is_last
            elif has_left(self._connection):
                return
            elif time.monotonic() - said >= _HEARTBEAT_S:
                yield ": still here\n"
                said = time.monotonic()
        if not ended:
            yield from self._gone()

    def _data(self, event: Event) -> dict[str, Any]:
        data = {"job_id": self._job.id} | event.data
        match event.name:
            case "progress":
                return data | {"unit": UNIT[self._job.type]}
            case "error":
                return data | {"error": data["error"] or error_json(Expired(), "expiry")}
            case "result":
                return data | {"result": self._result()}
        return data

    def _result(self) -> dict[str, Any] | None:
        """The result, or None when the job was deleted or has expired before its stream came to it."""
        services = self._services
        try:
            return services.views.result(services.store.jobs.get(self._job.id, self._job.owner))
        except (NotFound, NotFinished, NoResult, BlobMissing):
            return None

    def _gone(self) -> Iterator[str]:
        """Say why there is no more: the job was deleted or has expired, and its events with it."""
        reason: Phi4Error
        try:
            live(self._services, self._job.id, self._job.owner)
            return
        except (NotFound, Expired) as error:
            reason = error
        except Phi4Error:
            return
        yield _frame("error", {"job_id": self._job.id, "part": None, "error": error_json(reason, "expiry")})


def _frame(name: str, data: Mapping[str, Any], number: int = 0) -> str:
    head = f"id: {number}\n" if number else ""
    return f"{head}event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


def has_left(connection: Any) -> bool:
    """Tell whether a client has closed its connection; a WSGI server finds out only by writing."""
    if not isinstance(connection, socket.socket) or isinstance(connection, ssl.SSLSocket):
        return False
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
