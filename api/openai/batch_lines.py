"""The lines of a batch: how they are read, what one asks for, and the line that answers it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api import answers, body
from api.body import Submission, Upload
from api.openai import audio, chat_request
from api.openai.completion import Completion
from api.openai.errors import body as error_body
from api.openai.errors import checked, refuse, status_of_failure, without
from api.problems import failure_of
from api.schemas import JobRequest
from api.services import Services
from phi4.errors import (
    BlobMissing,
    BlobsUnavailable,
    InvalidRequest,
    MalformedRequest,
    NotFound,
    Phi4Error,
    StoreUnavailable,
)
from phi4.job import Job, new_id
from phi4.store import Batch

CHAT, TRANSCRIPTIONS = "/v1/chat/completions", "/v1/audio/transcriptions"
#: A line's job has a batch's day, and its result is kept until the batch's files were written.
_CANCEL_AFTER_S, _EXPIRES_S = 86_400, 3 * 86_400
#: So much of an input file is read at a time.
_READ_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Line:
    """One request of a batch; `body` is not looked into yet."""

    custom_id: str
    body: dict[str, Any]


def texts(path: Path) -> Iterator[bytes]:
    """Read a file's lines, and hold no file open meanwhile: every open batch would take one of the process' few.

    Raises `BlobMissing`.
    """
    offset = 0
    while lines := _texts_at(path, offset):
        yield from lines
        offset += sum(map(len, lines))


def _texts_at(path: Path, offset: int) -> list[bytes]:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.readlines(_READ_BYTES)
    except FileNotFoundError:
        raise BlobMissing from None


def read(text: bytes, endpoint: str) -> Line:
    """Read a line. Raises `MalformedRequest`, `InvalidRequest` when it is no request of this batch."""
    fields = body.read_json(text)
    custom_id, asked = fields.get("custom_id"), fields.get("body")
    if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= 512:
        raise refuse("custom_id", "must be a string of 1 to 512 characters", "invalid_value")
    if fields.get("method") != "POST":
        raise refuse("method", "must be POST", "invalid_method")
    if fields.get("url") != endpoint:
        raise refuse("url", f"must be {endpoint}, as the batch's endpoint is", "invalid_url")
    if not isinstance(asked, dict):
        raise refuse("body", "must be an object", "invalid_type")
    return Line(custom_id, asked)


def submission(services: Services, batch: Batch, line: Line) -> Submission:
    """Turn a line into a job's submission. Raises what the route that it names would refuse it with."""
    if batch.endpoint == CHAT:
        job_type, params, uploads = "chat", *_chat(services, batch, line.body)
    else:
        job_type, params, uploads = "asr", *_transcription(services, batch, line.body)
    request = JobRequest.model_validate(
        {
            "type": job_type,
            "params": params,
            "priority": "low",
            "metadata": {"batch": batch.id, "custom_id": line.custom_id},
            "input_retention": "until_done",
            "cancel_after": _CANCEL_AFTER_S,
            "expires_in": _EXPIRES_S,
        }
    )
    return body.submission(request, uploads, max_inputs=services.settings.max_inputs)


def _chat(services: Services, batch: Batch, fields: dict[str, Any]) -> tuple[dict[str, Any], list[Upload]]:
    chat = chat_request.read(fields)
    answers.check_model(services, chat.model)
    if chat.stream:
        raise refuse("stream", "a batch answers whole; leave it out", "invalid_value")
    return chat_request.job_of(
        chat, max_inputs=services.settings.max_inputs, stored=lambda file_id: services.stored(file_id, batch.owner)
    )


def _transcription(services: Services, batch: Batch, fields: dict[str, Any]) -> tuple[dict[str, Any], list[Upload]]:
    form = _form(fields)
    answers.check_model(services, form.model, audio.WHISPER)
    params = {"task": "transcribe", "language": form.language, "prompt": form.prompt}
    return {k: v for k, v in params.items() if v is not None}, [_recording(services, batch, fields.get("file"))]


def _form(fields: Mapping[str, Any]) -> audio.AudioRequest:
    sent = {name: value for name, value in fields.items() if name != "file"}
    return checked(
        audio.AudioRequest, without(sent, audio.IGNORED, {**audio.UNSUPPORTED, "stream": (False,), "diarize": (False,)})
    )


def _recording(services: Services, batch: Batch, file: object) -> Upload:
    """The recording: the id of an uploaded file, base64, or a data: URL of it."""
    if not isinstance(file, str) or not file:
        raise refuse("file", "must be the id of an uploaded file, or base64", "missing_required_parameter")
    if not file.startswith("file_"):
        return chat_request.decoded(file, "file")
    try:
        return services.stored(file, batch.owner)
    except NotFound:
        raise refuse("file", "names no file of yours", "invalid_value") from None


def answer(services: Services, batch: Batch, line: Line, job: Job | None) -> dict[str, Any]:
    """Write the answer of a job that has ended; one that has no result is told as its route would.

    Raises `BlobsUnavailable`, `StoreUnavailable`: it may be read later.
    """
    try:
        if job is None:
            raise MalformedRequest("The job of this line was deleted.")
        return {"status_code": 200, "request_id": new_id("req"), "body": _answered(services, batch, line, job)}
    except (BlobsUnavailable, StoreUnavailable):
        raise
    except Phi4Error as error:
        return refused(error)


def _answered(services: Services, batch: Batch, line: Line, job: Job) -> dict[str, Any]:
    result = services.views.result(job)
    if batch.endpoint == CHAT:
        return Completion(job, services.settings.served_name).whole(job, result)
    return audio.written(result, job, _form(line.body).response_format)


def refused(error: Phi4Error) -> dict[str, Any]:
    """Write an error as the answer of a line."""
    failure = failure_of(error)
    return {"status_code": status_of_failure(failure), "request_id": new_id("req"), "body": error_body(failure)}


def wrong(error: Phi4Error, number: int) -> dict[str, Any]:
    """Tell what is wrong with a line (from 1), as a batch's `errors` do."""
    told = error_body(failure_of(error))["error"]
    code = told["code"] if isinstance(error, InvalidRequest) else "invalid_json_line"
    return fault(code, told["message"], line=number, param=told["param"])


def fault(code: str, message: str, *, line: int | None = None, param: str | None = None) -> dict[str, Any]:
    """Write one of a batch's `errors`."""
    return {"code": code, "line": line, "message": message, "param": param}


def written(custom_id: str, response: dict[str, Any] | None, error: dict[str, str] | None = None) -> bytes:
    """Write one line of an output or error file."""
    line = {"id": new_id("batch_req"), "custom_id": custom_id, "response": response, "error": error}
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"
