"""The part of the OpenAPI document about the routes in the shapes of OpenAI's and Mistral's APIs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, cast

from pydantic.json_schema import models_json_schema

from api import mistral
from api.mistral import OcrRequest
from api.openai import audio, chat_request
from api.openai.audio import AudioRequest
from api.openai.batches import BatchRequest
from api.openai.chat_request import ChatRequest
from api.openai.files import FileFields

Schema = dict[str, Any]
_ERROR = "OpenAIError"
_OCR_ERROR = "MistralError"
#: Every route needs a key where there are keys, counts against what it may ask a minute, and needs Redis.
_ANY_REFUSAL = ("401", "403", "429", "503")
_KEY: list[Schema] = [{"key": []}]
_STATUSES = ("400", "404", "409", "413", "429", "500", "503", "504")


def schemas() -> Schema:
    """Describe what these routes take and answer."""
    models = [(model, "validation") for model in (ChatRequest, AudioRequest, OcrRequest, FileFields, BatchRequest)]
    _, definitions = models_json_schema(cast(Any, models), ref_template="#/components/schemas/{model}")
    made: Schema = definitions["$defs"]
    _add(made["ChatRequest"], chat_request.IGNORED, chat_request.UNSUPPORTED)
    _add(made["Message"], ("name",), {})
    _add(made["ContentPart"], chat_request.PART_NOTES, {})
    _add(made["AudioRequest"], (), audio.UNSUPPORTED)
    _add(made["OcrRequest"], mistral.IGNORED, mistral.UNSUPPORTED)
    for form in ("AudioRequest", "FileFields"):
        made[form]["properties"]["file"] = {"type": "string", "format": "binary"}
        made[form]["required"].append("file")
    answers = {"Completion": _COMPLETION, "OcrResponse": _OCR, "OpenAIFile": _FILE, "OpenAIBatch": _BATCH}
    return made | {_ERROR: _OPENAI_ERROR, _OCR_ERROR: _MISTRAL_ERROR} | answers


def paths(served_name: str) -> Schema:
    """Describe these routes."""
    model_id = {"name": "model_id", "in": "path", "required": True, "schema": {"type": "string"}}
    model_id["description"] = f"`{served_name}`"
    whisper = f"`model` is `{served_name}`, or `{audio.WHISPER}`, which clients have built in"
    return {
        "/v1/models": {"get": _route("List the model (OpenAI)", {"200": _object("The list")}, ("503",))},
        "/v1/models/{model_id}": {
            "get": _route("Show the model (OpenAI)", {"200": _object("The model")}, ("404",), parameters=[model_id])
        },
        "/v1/chat/completions": {
            "post": _route(
                "Answer a conversation (OpenAI)",
                {"200": _completion()},
                _STATUSES,
                body={"application/json": _ref("ChatRequest")},
            )
        },
        "/v1/audio/transcriptions": {"post": _audio("Write down a recording (OpenAI)", whisper)},
        "/v1/audio/translations": {"post": _audio("Translate a recording into English (OpenAI)", whisper)},
        **_files(),
        **_batches(),
        "/v1/ocr": {
            "post": _route(
                "Read a document (Mistral)",
                {"200": _json("Its pages", _ref("OcrResponse"))},
                (*_STATUSES, "422"),
                body={"application/json": _ref("OcrRequest")},
                error=_OCR_ERROR,
                description=f"`model` is `{served_name}`, `{mistral.MISTRAL_OCR}`, or null.",
            )
        },
    }


def _files() -> Schema:
    file = {"200": _json("The file", _ref("OpenAIFile"))}
    form = {"multipart/form-data": _ref("FileFields")}
    content = {"200": {"description": "Its bytes", "content": {"application/octet-stream": {"schema": _TEXT}}}}
    purpose = {"name": "purpose", "in": "query", "schema": _TEXT}
    one = _id("file_id")
    refused = ("404", "503")
    return {
        "/v1/files": {
            "post": _route("Upload a file (OpenAI)", file, _STATUSES, body=form),
            "get": _route("List files, newest first (OpenAI)", _LIST, ("400", "503"), parameters=[purpose, *_PAGE]),
        },
        "/v1/files/{file_id}": {
            "get": _route("Show a file (OpenAI)", file, refused, parameters=one),
            "delete": _route("Erase a file (OpenAI)", {"200": _object("That it is gone")}, refused, parameters=one),
        },
        "/v1/files/{file_id}/content": {
            "get": _route("Get a file's bytes (OpenAI)", content, ("404", "500", "503"), parameters=one)
        },
    }


def _batches() -> Schema:
    batch = {"200": _json("The batch", _ref("OpenAIBatch"))}
    one = _id("batch_id")
    wanted = {"application/json": _ref("BatchRequest")}
    about = (
        "Each line of the input file is `{custom_id, method, url, body}`; `body` is what the route named by `endpoint` "
        "takes. In one of `/v1/audio/transcriptions`, `file` is the id of an uploaded file, base64, or a data: URL."
    )
    return {
        "/v1/batches": {
            "post": _route("Begin a batch (OpenAI)", batch, _STATUSES, body=wanted, description=about),
            "get": _route("List batches, newest first (OpenAI)", _LIST, ("400", "503"), parameters=_PAGE),
        },
        "/v1/batches/{batch_id}": {"get": _route("Show a batch (OpenAI)", batch, ("404", "503"), parameters=one)},
        "/v1/batches/{batch_id}/cancel": {
            "post": _route("End a batch (OpenAI)", batch, ("404", "503"), parameters=one)
        },
    }


def _id(name: str) -> list[Schema]:
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}}]


def _add(model: Schema, ignored: Collection[str], unsupported: Mapping[str, Collection[Any]]) -> None:
    """Tell the fields that are taken off a request before it is checked."""
    for name in sorted(ignored):
        model["properties"][name] = {"description": "Accepted; changes nothing"}
    for name, nothing in unsupported.items():
        model["properties"][name] = {
            "enum": [None, *nothing],
            "description": "Not supported: only what asks for nothing",
        }


def _route(
    summary: str,
    responses: Schema,
    refusals: Iterable[str],
    *,
    parameters: list[Schema] | None = None,
    body: Schema | None = None,
    error: str = _ERROR,
    description: str = "",
) -> Schema:
    refused = {status: _json("Refused", _ref(error)) for status in sorted({*refusals, *_ANY_REFUSAL})}
    responses = {**responses, **refused}
    route: Schema = {"summary": summary, "parameters": parameters or [], "responses": responses, "security": _KEY}
    if description:
        route["description"] = description
    if body:
        route["requestBody"] = {"required": True, "content": {kind: {"schema": s} for kind, s in body.items()}}
    return route


def _audio(summary: str, description: str) -> Schema:
    text = {"schema": {"type": "string"}}
    kinds = dict.fromkeys(("text/plain", "application/x-subrip", "text/vtt"), text)
    answer = {
        "description": "In `response_format`",
        "content": {"application/json": {"schema": {"type": "object"}}} | kinds,
    }
    form = {"multipart/form-data": _ref("AudioRequest")}
    return _route(summary, {"200": answer}, _STATUSES, body=form, description=f"{description}.")


def _completion() -> Schema:
    content = {
        "application/json": {"schema": _ref("Completion")},
        "text/event-stream": {"schema": {"type": "string"}},
    }
    return {"description": "The completion, or with `stream` its chunks and `[DONE]`", "content": content}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(description: str, schema: Schema) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _object(description: str) -> Schema:
    return _json(description, {"type": "object"})


_COUNT: Schema = {"type": "integer"}
_TEXT: Schema = {"type": "string"}
_PAGE: list[Schema] = [
    {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 10_000}},
    {"name": "after", "in": "query", "schema": _TEXT},
    {"name": "order", "in": "query", "schema": {"enum": ["asc", "desc"]}},
]
_LIST: Schema = {
    "200": _json("A page", {"type": "object", "required": ["object", "data", "has_more"]}),
}
_FILE: Schema = {
    "type": "object",
    "required": ["id", "object", "bytes", "created_at", "expires_at", "filename", "purpose"],
    "properties": {
        "id": _TEXT,
        "object": {"const": "file"},
        "bytes": _COUNT,
        "created_at": _COUNT,
        "expires_at": _COUNT,
        "filename": _TEXT,
        "purpose": {"enum": ["batch", "user_data", "vision", "batch_output"]},
        "status": {"const": "processed"},
    },
}
_BATCH: Schema = {
    "type": "object",
    "required": ["id", "object", "endpoint", "input_file_id", "status", "created_at", "request_counts"],
    "properties": {
        "id": _TEXT,
        "object": {"const": "batch"},
        "endpoint": _TEXT,
        "input_file_id": _TEXT,
        "output_file_id": {"type": ["string", "null"]},
        "error_file_id": {"type": ["string", "null"]},
        "status": {
            "enum": [
                *("validating", "in_progress", "finalizing", "completed", "failed", "expired"),
                *("cancelling", "cancelled"),
            ]
        },
        "created_at": _COUNT,
        "request_counts": {"type": "object", "properties": dict.fromkeys(("total", "completed", "failed"), _COUNT)},
    },
}
_OPENAI_ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": _TEXT,
                "type": _TEXT,
                "param": {"type": ["string", "null"], "description": "The field that is wrong"},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_MISTRAL_ERROR: Schema = {
    "type": "object",
    "description": "`detail` with 422, else the other members",
    "properties": {
        "detail": {"type": "array", "items": {"type": "object", "required": ["loc", "msg", "type"]}},
        "object": {"const": "error"},
        "message": _TEXT,
        "type": _TEXT,
        "param": {"type": ["string", "null"]},
        "code": _TEXT,
    },
}
_COMPLETION: Schema = {
    "type": "object",
    "required": ["id", "object", "created", "model", "choices", "usage"],
    "properties": {
        "id": {"type": "string", "description": "`chatcmpl-` and what follows `job_` in the id of its job"},
        "object": {"const": "chat.completion"},
        "created": _COUNT,
        "model": _TEXT,
        "choices": {"type": "array", "items": {"type": "object"}},
        "usage": {
            "type": "object",
            "properties": {"prompt_tokens": _COUNT, "completion_tokens": _COUNT, "total_tokens": _COUNT},
        },
    },
}
_OCR: Schema = {
    "type": "object",
    "required": ["pages", "model", "usage_info"],
    "properties": {
        "pages": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["index", "markdown", "images", "dimensions"],
                "properties": {
                    "index": {"type": "integer", "description": "The page in the document, from 0"},
                    "markdown": _TEXT,
                    "images": {"type": "array", "maxItems": 0},
                    "dimensions": {"type": ["object", "null"]},
                    "blocks": {"type": "null"},
                    "error": {"type": "object", "description": "Why this page could not be read"},
                },
            },
        },
        "model": _TEXT,
        "document_annotation": {"type": "null"},
        "usage_info": {
            "type": "object",
            "properties": {"pages_processed": _COUNT, "doc_size_bytes": _COUNT},
        },
    },
}
