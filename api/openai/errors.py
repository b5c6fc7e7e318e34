"""Refuses requests as OpenAI's API does: `{"error": {message, type, param, code}}`, with its types and codes."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from flask import Response, json
from pydantic import BaseModel, ValidationError

from api.problems import Failure, field_errors, invalid_fields
from phi4.errors import InvalidRequest, PromptTooLong, RateLimited, TooManyStreams, TooManyWaiting

_M = TypeVar("_M", bound=BaseModel)
#: OpenAI answers 400 to whatever is wrong with a request.
_STATUS = {415: 400, 422: 400}
_TYPES = {403: "permission_error", 429: "requests"}
_CODES = {
    "unauthorized": "invalid_api_key",
    "invalid_request": "invalid_value",
    PromptTooLong.code: "context_length_exceeded",
    TooManyWaiting.code: "rate_limit_exceeded",
    TooManyStreams.code: "rate_limit_exceeded",
    "queue_full": "rate_limit_exceeded",
    RateLimited.code: "rate_limit_exceeded",
}
#: pydantic's kinds of error in OpenAI's words; numbers past a bound and wrong types are told below.
_KINDS = {
    "missing": "missing_required_parameter",
    "extra_forbidden": "unknown_parameter",
    "too_short": "empty_array",
    "too_long": "array_above_max_length",
    "string_too_short": "empty_string",
    "string_too_long": "string_above_max_length",
}
_PAST_A_BOUND = {"greater_than": "below_min", "less_than": "above_max"}


def shape(failure: Failure) -> Response:
    """Write a failure as OpenAI does."""
    text = json.dumps(body(failure), ensure_ascii=False)
    return Response(text, status_of_failure(failure), mimetype="application/json")


def status_of_failure(failure: Failure) -> int:
    """Find the HTTP status that OpenAI would answer."""
    status = failure.cause().status
    return _STATUS.get(status, status)


def body(failure: Failure) -> dict[str, Any]:
    """Give the error as JSON, as streams tell it too."""
    failure = failure.cause()
    wrong: Mapping[str, str] = next(iter(failure.details.get("errors") or []), {})
    fallback = "invalid_request_error" if failure.status < 500 else "server_error"
    return {
        "error": {
            "message": failure.message,
            "type": _TYPES.get(failure.status, fallback),
            "param": _spelled(wrong["field"]) if wrong else None,
            "code": wrong.get("code") or _CODES.get(failure.code, failure.code),
        }
    }


def checked(model: type[_M], fields: Mapping[str, Any]) -> _M:
    """Check fields against a model. Raises `InvalidRequest` with OpenAI's codes."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        kinds = [_code(e["type"], e.get("ctx", {})) for e in error.errors(include_url=False, include_input=False)]
        wrong = [one | {"code": kind} for one, kind in zip(field_errors(error), kinds, strict=False)]
        raise invalid_fields(wrong) from None


def refuse(field: str, message: str, code: str) -> InvalidRequest:
    """Refuse one field with one of OpenAI's codes."""
    return invalid_fields([{"field": field, "message": message, "code": code}])


def without(
    fields: Mapping[str, Any], ignored: Collection[str], unsupported: Mapping[str, Collection[Any]]
) -> dict[str, Any]:
    """Leave out the fields that change nothing: those that are ignored, and unsupported ones at a value that asks for
    nothing. Raises `InvalidRequest` for any other value of those.
    """
    left: dict[str, Any] = {}
    for name, value in fields.items():
        if name in ignored:
            continue
        if name not in unsupported:
            left[name] = value
        elif value is not None and value not in unsupported[name]:
            raise refuse(name, "is not supported by this service; leave it out", "unsupported_parameter")
    return left


def _code(kind: str, context: Mapping[str, Any]) -> str:
    if bound := next((told for prefix, told in _PAST_A_BOUND.items() if kind.startswith(prefix)), ""):
        limit = context.get("ge", context.get("gt", context.get("le", context.get("lt"))))
        return f"{'integer' if isinstance(limit, int) else 'decimal'}_{bound}_value"
    if kind.endswith(("_type", "_parsing")):
        return "invalid_type"
    return _KINDS.get(kind, "invalid_value")


def _spelled(field: str) -> str:
    """Spell a field as OpenAI does: `messages[0].content`."""
    return re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", field.removeprefix("params."))
