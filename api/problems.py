"""Turns every error into an RFC 9457 problem with a status, a stable code and a sentence to act on."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, Response, current_app, g, json, request
from pydantic import ValidationError
from werkzeug.exceptions import ClientDisconnected, HTTPException

from phi4 import errors
from phi4.blobs import NO_ROOM
from phi4.errors import InvalidRequest, MalformedRequest, Phi4Error, RequestTimeout, StorageFull
from phi4.log import log

_log = logging.getLogger(__name__)

#: Looked up along the class tree, the nearest wins.
STATUS: dict[type[Phi4Error], int] = {
    errors.RequestError: 422,
    errors.MalformedRequest: 400,
    errors.InvalidRequest: 422,
    errors.UnsupportedMedia: 415,
    errors.TooLarge: 413,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.RequestTimeout: 408,
    errors.RateLimited: 429,
    errors.NotFound: 404,
    errors.Expired: 410,
    errors.NotFinished: 409,
    errors.NoResult: 409,
    errors.NotRetryable: 409,
    errors.DeliveryUnderWay: 409,
    errors.TooManyStreams: 429,
    errors.FormatUnavailable: 422,
    errors.IdempotencyConflict: 409,
    errors.IdempotencyMismatch: 422,
    errors.QueueFull: 429,
    errors.NoWorkerForType: 503,
    errors.TooManyWaiting: 429,
    errors.UnknownModel: 404,
    errors.Cancelled: 499,  # as proxies call it when the client has gone; nobody reads it
    errors.InputError: 422,
    errors.ServiceError: 503,
    errors.BlobMissing: 500,
    errors.BlobTampered: 500,
    Phi4Error: 500,
}
#: What a job's own error is for a request that waited for the job; other errors of inputs are the caller's.
_JOB_STATUS = {
    errors.CannotAnswer.code: 422,
    errors.AnswerCut.code: 422,
    errors.Cancelled.code: 409,
    errors.DeadlineExceeded.code: 504,
}
_DRAIN_S = 20.0
_DRAIN_CHUNK = 1 << 20
#: Of what strangers send no more is read than an honest mistake is long.
_DRAIN_STRANGER = 8 << 20
_RETRY_AFTER_S = {408: 5, 429: 5, 503: 3, 409: 1}
_HTTP_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 400: "malformed_request"}
_HTTP_DETAILS = {
    404: "There is no such address; /docs lists all of them.",
    413: "The request is larger than this service accepts (PHI4_MAX_BODY_MB), or its form fields beside files (4 MB).",
}
#: So many wrong fields are told of one request, and so much of each one's name.
_MOST_ERRORS, _LONGEST_NAME = 100, 100
_OUR_FAULT = "Something went wrong on our side; the log has it under this request_id."
_TITLES = {
    400: "Malformed request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "Request timeout",
    409: "Conflict",
    410: "Gone",
    413: "Too large",
    415: "Unsupported media type",
    422: "Invalid request",
    429: "Too many requests",
    500: "Internal error",
    503: "Unavailable",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request is refused, before it is written in the shape of its API."""

    status: int
    code: str
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def cause(self) -> Failure:
        """What ended the job, when it is the job's end that the request failed with; else the failure itself."""
        error = self.details.get("error")
        if not error:
            return self
        status = _JOB_STATUS.get(error["code"], 422 if error["category"] == "input" else 500)
        return Failure(status, error["code"], error["message"])


Shape = Callable[[Failure], Response]


def status_of(error: Phi4Error) -> int:
    """Find the HTTP status of an error."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def problem(status: int, code: str, detail: str, **more: Any) -> Response:
    """Build the response; keyword arguments become members of the problem (`errors`, `job`, …)."""
    headers = _headers(status, code, more.pop("retry_after", None))
    body = {
        "type": "about:blank",  # RFC 9457: the status says the type; `code` tells the rest
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
        "instance": request.path,
        "code": code,
        "request_id": g.get("request_id", ""),
        "errors": more.pop("errors", []),
        **more,
    }
    return Response(json.dumps(body, ensure_ascii=False), status, headers, mimetype="application/problem+json")


def _headers(status: int, code: str, retry_after: object) -> dict[str, str]:
    """What an error's headers tell, whatever its body looks like; `retry_after` in seconds, None for the usual."""
    if status == 401:
        return {"WWW-Authenticate": 'Bearer realm="phi4"'}
    if code in ("not_finished", "idempotency_in_flight") or status in (408, 429, 503):
        return {"Retry-After": str(retry_after or _RETRY_AFTER_S[status])}
    return {}


def field_errors(
    error: ValidationError, prefix: str = "", *, known: Collection[str] = (), of_params: Collection[str] = ()
) -> list[dict[str, str]]:
    """List what is wrong field by field, without the values.

    Of a field that there is not it tells the `known` ones, or that it is one of those that belong into `params`.
    """
    return [
        {
            "field": ".".join([prefix] * bool(prefix) + [str(p)[:_LONGEST_NAME] for p in e["loc"]]),
            "message": _unknown(str(e["loc"][0]), known, of_params)
            if known and e["type"] == "extra_forbidden" and len(e["loc"]) == 1
            else e["msg"].removeprefix("Value error, "),
        }
        for e in error.errors(include_url=False, include_context=False, include_input=False)[:_MOST_ERRORS]
    ]


def _unknown(name: str, known: Collection[str], of_params: Collection[str]) -> str:
    return "belongs into `params`" if name in of_params else f"is not known; there are {', '.join(known)}"


def invalid(field: str, message: str) -> InvalidRequest:
    """Refuse one field, in the form that `field_errors` gives to many."""
    return invalid_fields([{"field": field, "message": message}])


def invalid_fields(wrong: list[dict[str, str]]) -> InvalidRequest:
    """Refuse fields; the detail tells the first, `errors` all."""
    first = wrong[0]
    more = f" (and {len(wrong) - 1} more, see errors)" if len(wrong) > 1 else ""
    return InvalidRequest(f"{first['field']}: {first['message']}{more}", errors=wrong)


def install(app: Flask, shapes: Mapping[str, Shape]) -> None:
    """Answer every error of an application as a problem, or in the shape that its path asks for (the first match)."""
    app.extensions["error_shapes"] = shapes
    app.register_error_handler(Phi4Error, _own)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(ClientDisconnected, _cut_off)
    app.register_error_handler(Exception, _unexpected)


def failure_of(error: Phi4Error) -> Failure:
    """Describe an error of the service."""
    return Failure(status_of(error), error.code, error.message, error.details)


def _answer(failure: Failure) -> Response:
    shapes: Mapping[str, Shape] = current_app.extensions["error_shapes"]
    for path, shape in shapes.items():
        if request.path == path or request.path.startswith(f"{path}/"):
            response = shape(failure)
            cause = failure.cause()
            response.headers.extend(_headers(response.status_code, cause.code, cause.details.get("retry_after")))
            return response
    return problem(failure.status, failure.code, failure.message, **failure.details)


def _own(error: Phi4Error) -> Response:
    failure = failure_of(error)
    _drain(_DRAIN_STRANGER if failure.status == 401 else math.inf)
    if failure.status >= 500:
        log(_log, "request failed", level=logging.WARNING, code=error.code, error=error.message, path=request.path)
    return _answer(failure)


def _http(error: HTTPException) -> Response:
    status = error.code or 500
    _drain(math.inf)
    detail = _HTTP_DETAILS.get(status, error.description or "")
    response = _answer(Failure(status, _HTTP_CODES.get(status, "http_error"), detail))
    for name, value in error.get_headers():
        if name == "Allow":
            response.headers[name] = value
    return response


def malformed_body(_error: Exception) -> Response:
    """Answer a body whose chunks make no sense."""
    return problem(400, MalformedRequest.code, "The body's chunks cannot be read; let your HTTP client write them.")


def _cut_off(_error: ClientDisconnected) -> Response:
    """Answer a body that came too slowly; a client that went away in the middle of one will not hear it."""
    return problem(status_of(RequestTimeout()), RequestTimeout.code, RequestTimeout().message)


def _drain(most: float) -> None:
    """Read what a client still sends, for a while: one that is cut off in its sending never sees the answer."""
    ends, read = time.monotonic() + _DRAIN_S, 0
    try:
        while time.monotonic() < ends and read < most:
            piece = request.environ["wsgi.input"].read(_DRAIN_CHUNK)
            read += len(piece)
            if not piece:
                return
    except Exception as error:  # whatever the server makes of a client that is too slow, gone, or no HTTP speaker
        log(_log, "body not read", level=logging.DEBUG, error=type(error).__name__)


def _unexpected(error: Exception) -> Response:
    # A large body is kept in a temporary file while it is read.
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return _own(StorageFull())
    _log.exception("unexpected error", extra={"phi4_fields": {"path": request.path, "request": g.get("request_id")}})
    return _answer(Failure(500, "internal_error", _OUR_FAULT))
