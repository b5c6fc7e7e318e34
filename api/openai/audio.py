"""Answers `POST /v1/audio/transcriptions` and `/translations`: the job of a recording, in OpenAI's formats."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any, Literal

from flask import Response, jsonify, request
from pydantic import BaseModel, ConfigDict, Field, field_validator

from api import answers, body, formats
from api.openai.errors import checked, refuse, without
from api.services import Services
from phi4.errors import UnsupportedMedia
from phi4.job import Job

Task = Literal["transcribe", "translate"]
#: The name that clients of these routes have built in.
WHISPER = "whisper-1"
#: Fields that clients send and that change nothing here.
IGNORED = frozenset({"user", "store", "metadata", "parallel_tool_calls"})
#: Fields that nothing here can do, and the values, as forms write them, with which they ask for nothing.
UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "stream": ("false", "False", "0", ""),
    "chunking_strategy": ("auto", ""),
    "diarize": ("false", "False", "0", ""),
    "include": ([],),
    "keywords": ([],),
    "languages": ([],),
    "known_speaker_names": ([],),
    "known_speaker_references": ([],),
}
_LISTS = ("timestamp_granularities", *(name for name, nothing in UNSUPPORTED.items() if nothing == ([],)))


class AudioRequest(BaseModel):
    """The fields beside the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    language: str | None = Field(None, description="ISO 639-1, of the recording")
    prompt: str | None = Field(None, max_length=20_000, description="Words that may occur")
    response_format: Literal["json", "text", "srt", "vtt", "verbose_json"] = "json"
    temperature: float = Field(0.0, ge=0.0, le=1.0, description="Accepted; the service chooses its own")
    timestamp_granularities: list[Literal["segment", "word"]] = Field(default_factory=list)

    @field_validator("language")
    @classmethod
    def _two_letters(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch("[a-z]{2}", value):
            raise ValueError("must be two small letters of ISO 639-1, such as en")
        return value

    @field_validator("timestamp_granularities")
    @classmethod
    def _not_of_words(cls, value: list[str]) -> list[str]:
        if "word" in value:
            raise ValueError("the model tells no times of words, and none are made up; use segment")
        return value


def answer(services: Services, task: Task) -> Response:
    """Write a recording down, or translate it into English. Raises what keeps it from an answer."""
    form = checked(AudioRequest, without(_fields(), IGNORED, UNSUPPORTED))
    answers.check_model(services, form.model, WHISPER)
    upload = _file()
    params = {"task": task, "language": form.language, "prompt": form.prompt}
    with answers.place(services.room_to_wait):
        job = answers.submit(services, "asr", {k: v for k, v in params.items() if v is not None}, [upload])
        job = answers.wait(services, job)
    result = services.views.result(job)
    if form.response_format in ("json", "verbose_json"):
        return jsonify(written(result, job, form.response_format))
    text, content_type = formats.render(result, "asr", form.response_format)
    return Response(text, content_type=content_type)


def written(result: dict[str, Any], job: Job, response_format: str) -> dict[str, Any]:
    """Write a transcript as JSON; formats that are text become its `text`."""
    if response_format == "verbose_json":
        return _verbose(result, job)
    if response_format == "json":
        return _brief(result, job)
    return {"text": formats.render(result, "asr", response_format)[0]}


def _fields() -> dict[str, Any]:
    """Read the form; an empty field is none."""
    if request.mimetype != "multipart/form-data":
        raise UnsupportedMedia(f"Send multipart/form-data, not {request.mimetype or 'an untyped body'}.")
    fields: dict[str, Any] = {}
    for sent, values in request.form.lists():
        name = sent.removesuffix("[]")
        if name in _LISTS:
            fields[name] = values
        elif len(values) > 1:
            raise refuse(name, "was sent more than once", "invalid_value")
        elif values[0]:
            fields[name] = values[0]
    return fields


def _file() -> body.Upload:
    if stray := [name for name in request.files if name != "file"]:
        raise refuse(stray[0], "is no file of this request; send one under the name `file`", "unknown_parameter")
    files = request.files.getlist("file")
    if len(files) != 1:
        code = "invalid_value" if files else "missing_required_parameter"
        raise refuse("file", "send one file under this name", code)
    return body.from_file(files[0])


def _usage(job: Job) -> dict[str, Any]:
    return {"type": "duration", "seconds": round(sum(one.seconds or 0.0 for one in job.inputs), 3)}


def _brief(result: dict[str, Any], job: Job) -> dict[str, Any]:
    return {"text": result["text"], "usage": _usage(job)} | _errors(result)


def _verbose(result: dict[str, Any], job: Job) -> dict[str, Any]:
    shown = {name: result[name] for name in ("task", "language", "duration", "text")}
    return shown | {"segments": [_segment(s) for s in result["segments"]], "usage": _usage(job)} | _errors(result)


def _errors(result: dict[str, Any]) -> dict[str, Any]:
    """Clips that could not be written down; a member that OpenAI does not have."""
    return {"errors": result["errors"]} if result.get("errors") else {}


def _segment(segment: dict[str, Any]) -> dict[str, Any]:
    """A segment as Whisper has it; what this model does not tell is null."""
    text = str(segment["text"])
    encoded = text.encode()
    return segment | {
        "seek": int(segment["start"] * 100),
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": None,
        "compression_ratio": round(len(encoded) / len(zlib.compress(encoded)), 3),
        "no_speech_prob": None,
    }
