"""The OpenAPI document: written out, with the request's schemas taken from the models that check it."""

from __future__ import annotations

from typing import Any, cast

from pydantic.json_schema import models_json_schema

from api import openapi_peers
from api.formats import ALL_FORMATS
from api.openapi_groups import grouped, tags
from api.openapi_schemas import DELIVERY, DELIVERY_LIST, FORM
from api.schemas import JobRequest
from phi4 import __version__
from phi4.job import PRIORITIES, Status
from phi4.params import PARAMS, UNIT

Schema = dict[str, Any]


def document(served_name: str) -> Schema:
    """Describe every route of this process."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "phi4 service",
            "version": __version__,
            "description": f"OCR, visual question answering and speech recognition as jobs on {served_name}.",
        },
        "tags": tags(),
        "paths": grouped(_paths() | openapi_peers.paths(served_name)),
        "components": {"schemas": _schemas(), "securitySchemes": {"key": _KEY}},
    }


def _schemas() -> Schema:
    models = [(model, "validation") for model in (JobRequest, *PARAMS.values())]
    _, definitions = models_json_schema(cast(Any, models), ref_template="#/components/schemas/{model}")
    peers = openapi_peers.schemas()
    own = {"Job": _JOB, "JobList": _JOB_LIST, "Problem": _PROBLEM, "Form": FORM}
    return {**peers, **definitions["$defs"], **own, "Delivery": DELIVERY, "DeliveryList": DELIVERY_LIST}


def _paths() -> Schema:
    job_id = _parameter("job_id", "path", {"type": "string"}, "The job's id")
    wait = {"type": "integer", "minimum": 0, "maximum": 60}
    return {
        "/v1/jobs": {
            "post": _operation(
                "Submit a job",
                {"200": _job("The job, ended in time"), "202": _job("The job, accepted")},
                problems=("400", "408", "409", "413", "415", "422"),
                parameters=[
                    _parameter(
                        "Prefer", "header", {"type": "string"}, "`wait=n`: hold the answer up to n seconds (60)"
                    ),
                    _parameter("Idempotency-Key", "header", {"type": "string", "maxLength": 255}, "Same key, same job"),
                    _parameter("traceparent", "header", {"type": "string"}, "W3C trace context, passed on"),
                ],
                body={"application/json": _ref("JobRequest"), "multipart/form-data": _ref("Form")},
            ),
            "get": _operation(
                "List jobs, newest first",
                {"200": _json("A page of jobs", _ref("JobList"))},
                problems=("422",),
                parameters=[
                    _parameter("status", "query", {"type": "string", "enum": [s.value for s in Status]}, "Only these"),
                    _parameter("type", "query", {"type": "string", "enum": list(PARAMS)}, "Only these"),
                    _parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 100}, "Default 20"),
                    _parameter("after", "query", {"type": "string"}, "`last_id` of the page before"),
                    _parameter("owner", "query", {"type": "string"}, "Another owner's; with an admin key"),
                ],
            ),
        },
        "/v1/jobs/{job_id}": {
            "get": _operation(
                "Show a job",
                {"200": _job("The job")},
                problems=("404", "410", "422", "500"),
                parameters=[
                    job_id,
                    _parameter("wait", "query", wait, "Seconds to wait for a change of status"),
                    _parameter(
                        "include",
                        "query",
                        {"type": "string", "enum": ["partial", "parts"]},
                        "The result so far, or how each part fared",
                    ),
                ],
            ),
            "delete": _operation(
                "Erase a job",
                {"200": _json("What was erased", {"type": "object"})},
                problems=("404",),
                parameters=[job_id],
            ),
        },
        "/v1/jobs/{job_id}/cancel": {
            "post": _operation("Cancel a job", {"200": _job("The job")}, problems=("404", "410"), parameters=[job_id]),
        },
        "/v1/jobs/{job_id}/retry": {
            "post": _operation(
                "Run a failed or cancelled job again, all of it, while its input is kept",
                {"202": _job("The job, queued for its next run")},
                problems=("404", "409", "410"),
                parameters=[job_id],
            ),
        },
        "/v1/jobs/{job_id}/events": {
            "get": _operation(
                "Follow a job: Server-Sent Events status, progress, delta, result, error",
                {"200": _stream(), "204": {"description": "The job has ended and there is no event after that id"}},
                problems=("404", "410", "422"),
                parameters=[
                    job_id,
                    _parameter("Last-Event-ID", "header", {"type": "integer"}, "Go on after this event"),
                    _parameter("after", "query", {"type": "integer"}, "The same, for clients that set no headers"),
                ],
            ),
        },
        "/v1/jobs/{job_id}/deliveries": {
            "get": _operation(
                "Show what became of a job's webhooks, the newest event first",
                {"200": _json("Its events and the last tries to deliver each", _ref("DeliveryList"))},
                problems=("404",),
                parameters=[job_id],
            ),
        },
        "/v1/jobs/{job_id}/deliveries/{delivery_id}/replay": {
            "post": _operation(
                "Send a webhook again, under the same `webhook-id`, whatever became of it",
                {"202": _json("The delivery, due now", _ref("Delivery"))},
                problems=("404", "409", "410"),
                parameters=[job_id, _parameter("delivery_id", "path", {"type": "string"}, "The event's id, `evt_…`")],
            ),
        },
        "/v1/jobs/{job_id}/result": {
            "get": _operation(
                "Get the result",
                {"200": _result()},
                problems=("404", "409", "410", "422", "500"),
                parameters=[
                    job_id,
                    _parameter("format", "query", {"type": "string", "enum": list(ALL_FORMATS)}, _FORMAT),
                ],
            ),
        },
        "/livez": {"get": _free("The process answers", {"200": _json("It does", {"type": "object"})})},
        "/readyz": {
            "get": _free("A job sent now is worked on", {"200": _json("Yes", {"type": "object"})}, problems=("503",))
        },
        "/health": {
            "get": _free(
                "How things are in a word; with a key queues, workers, what ended, webhooks and limits too",
                {"200": _json("The state", {"type": "object"})},
                problems=("503",),
            )
        },
    }


def _operation(
    summary: str,
    responses: Schema,
    *,
    problems: tuple[str, ...] = (),
    parameters: list[Schema] | None = None,
    body: Schema | None = None,
) -> Schema:
    """Describe an operation that needs a key, where there are keys."""
    operation = _free(summary, responses, problems=(*problems, *_ANY_PROBLEM), parameters=parameters)
    operation["security"] = [{"key": []}]
    if body:
        operation["requestBody"] = {"required": True, "content": {kind: {"schema": s} for kind, s in body.items()}}
    return operation


def _free(
    summary: str, responses: Schema, *, problems: tuple[str, ...] = (), parameters: list[Schema] | None = None
) -> Schema:
    """Describe an operation that everybody may use."""
    refusals = {
        status: {"description": "Refused", "content": {"application/problem+json": {"schema": _ref("Problem")}}}
        for status in sorted(set(problems))
    }
    return {"summary": summary, "parameters": parameters or [], "responses": {**responses, **refusals}, "security": []}


def _parameter(name: str, place: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": place, "required": place == "path", "schema": schema, "description": description}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(description: str, schema: Schema) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _job(description: str) -> Schema:
    return _json(description, _ref("Job"))


def _stream() -> Schema:
    fields = (
        "Each has `id` (grows by one) and `data`, JSON with `job_id` and `part` (number or null). `status`: `status`, "
        "`attempts`. `progress`: `completed`, `total` (null until known), `unit`. `delta`: `attempt` (of the part), "
        "`offset` (bytes of UTF-8 before it; 0: drop what you had of this part), `text`. The last one is `result` "
        "(`result`; null when it is gone already) or `error` (`error` as in the job). Deltas come while somebody "
        "reads, and a reader that was away for long may miss some: the result has the whole text."
    )
    return {"description": fields, "content": {"text/event-stream": {"schema": {"type": "string"}}}}


def _result() -> Schema:
    text = {"schema": {"type": "string"}}
    kinds = ("text/plain", "text/markdown", "application/x-subrip", "text/vtt")
    return {
        "description": "The result",
        "content": {"application/json": {"schema": {"type": "object"}}} | dict.fromkeys(kinds, text),
    }


_FORMAT = "Default json. `text` of pages that were read as Markdown is without its marks"
_KEY: Schema = {
    "type": "http",
    "scheme": "bearer",
    "description": "A key from `phi4 keys create`; a service on loopback that has no keys asks for none.",
}
#: No or a wrong key; not for this caller; one request too many in a minute; the store is away.
_ANY_PROBLEM = ("401", "403", "429", "503")
_JOB: Schema = {
    "type": "object",
    "required": ["id", "object", "type", "status", "created_at", "expires_at", "progress", "links"],
    "properties": {
        "id": {"type": "string", "examples": ["job_01m83vfqy1b4m423kpgcvgtnep"]},
        "object": {"const": "job"},
        "type": {"enum": list(PARAMS)},
        "status": {"enum": [s.value for s in Status]},
        "created_at": {"type": "integer", "description": "Unix seconds"},
        "started_at": {"type": ["integer", "null"]},
        "completed_at": {"type": ["integer", "null"]},
        "expires_at": {"type": "integer"},
        "queue": {
            "type": "object",
            "description": "`position`: parts ahead; `reason`: `no_worker_for_type` or `in_flight_limit`",
        },
        "progress": {
            "type": "object",
            "properties": {
                "completed": {"type": "integer"},
                "total": {"type": ["integer", "null"], "description": "null until it is known"},
                "unit": {"enum": list(UNIT.values())},
            },
        },
        "attempts": {"type": "integer"},
        "model": {"type": ["string", "null"], "description": "null until an engine has worked on it"},
        "engine": {"type": ["string", "null"]},
        "priority": {"enum": list(PRIORITIES)},
        "params": {"type": "object"},
        "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
        "input": {"type": "array", "items": {"type": "object"}},
        "result": {"type": "object", "description": "Once completed; its shape depends on the type"},
        "parts": {"type": "array", "items": {"type": "object"}, "description": "With `include=parts`"},
        "usage": {"type": "object"},
        "timings": {"type": "object", "description": "queued_ms, prepare_ms, run_ms"},
        "cached": {"const": True, "description": "The result is that of an earlier, equal job of the same owner"},
        "cached_from": {"type": "string", "description": "That job"},
        "error": {"type": "object", "description": "code, category, message, retryable, phase"},
        "links": {"type": "object"},
    },
}
_JOB_LIST: Schema = {
    "type": "object",
    "required": ["object", "data", "has_more"],
    "properties": {
        "object": {"const": "list"},
        "data": {"type": "array", "items": _ref("Job")},
        "has_more": {"type": "boolean"},
        "first_id": {"type": ["string", "null"]},
        "last_id": {"type": ["string", "null"]},
    },
}
_PROBLEM: Schema = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "A sentence to act on"},
        "instance": {"type": "string"},
        "code": {"type": "string", "description": "Stable; the one to program against"},
        "request_id": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}
