"""Reads a submission, JSON or multipart, into a checked request and its inputs; nothing is stored yet."""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, BinaryIO, NoReturn, cast

from flask import Request
from jsonschema_rs import Draft202012Validator
from jsonschema_rs import ValidationError as SchemaError
from pydantic import ValidationError
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import RequestEntityTooLarge

from api.problems import field_errors, invalid, invalid_fields
from api.schemas import JobInput, JobRequest
from phi4.errors import EmptyInput, MalformedRequest, NotFound, UnsupportedMedia
from phi4.media_type import HEAD_BYTES, kinds_for, sniff
from phi4.params import PARAMS, JobType, chat_media

_MAX_DEPTH = 32
#: Two bytes of JSON can become a hundred in memory, so what it would hold is counted before it is read.
_MOST_VALUES = 50_000
#: One that does not end goes to the end, so that no second one is looked for in it.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_METASCHEMA = "https://json-schema.org/draft/2020-12/schema"
#: Bytes of JSON: a job's record lies in Redis, and every list of jobs is made of records.
_LARGEST_SCHEMA = 64 << 10
_JSON_FIELDS = ("params", "metadata", "input", "webhook_events")


@dataclass(frozen=True, slots=True)
class Upload:
    """One input as it came: a stream to be stored, or a URL to be fetched."""

    filename: str
    stream: BinaryIO | None = None
    url: str = ""


@dataclass(frozen=True, slots=True)
class Submission:
    """A checked request; `params` are complete, with their defaults."""

    request: JobRequest
    params: Mapping[str, Any]
    uploads: tuple[Upload, ...]


def read(request: Request, *, max_inputs: int, stored: Callable[[str], Upload]) -> Submission:
    """Read a submission; `stored` opens an uploaded file by its id, or raises `NotFound`.

    Raises `MalformedRequest`, `InvalidRequest`, `UnsupportedMedia`, `EmptyInput`.
    """
    _check_encoding(request)
    match request.mimetype:
        case "application/json":
            fields, files = read_json(whole(request)), []
        case "multipart/form-data":
            fields, files = _form_fields(request), request.files.getlist("file")
        case other:
            raise UnsupportedMedia(f"Send application/json or multipart/form-data, not {other or 'an untyped body'}.")
    job = _checked(fields)
    _check_number(len(job.input) + len(files), max_inputs)  # before each one that is stored is opened
    uploads = [_from_json(n, i, stored) for n, i in enumerate(job.input)] + [from_file(f) for f in files]
    return submission(job, uploads, max_inputs=max_inputs)


def submission(job: JobRequest, uploads: Sequence[Upload], *, max_inputs: int) -> Submission:
    """Complete a request with its inputs, its params checked. Raises `InvalidRequest`."""
    params = _checked_params(job)
    _check_number(len(uploads), max_inputs)
    _check_inputs(job.type, params, len(uploads))
    return Submission(job, params, tuple(uploads))


def _check_encoding(request: Request) -> None:
    if (encoding := request.headers.get("Content-Encoding", "identity")).lower() != "identity":
        raise UnsupportedMedia(f"Send the body as it is, without Content-Encoding: {encoding}.")


def whole(request: Request) -> bytes:
    """Read a body. Raises `RequestEntityTooLarge`, `UnsupportedMedia`."""
    _check_encoding(request)
    body = request.get_data(cache=False)
    # Of a body that came without a length no more than the limit is read, and what lies beyond is left out silently.
    if request.content_length is None and len(body) == request.max_content_length:
        raise RequestEntityTooLarge
    return body


def read_json(body: bytes) -> dict[str, Any]:
    """Parse a JSON object, refusing what is nested too deep, and numbers that are none. Raises `MalformedRequest`."""
    value = _parsed(body)
    if not isinstance(value, dict):
        raise MalformedRequest("The body must be a JSON object.")
    return value


def _parsed(body: bytes) -> object:
    if _holds_too_many(body):
        raise MalformedRequest(f"The JSON holds more than {_MOST_VALUES} values.")
    try:
        # Strictly, and nothing but UTF-8: given bytes, the library guesses at others, and lets halves of characters in.
        value = json.loads(body.decode("utf-8-sig"), parse_constant=_no_constant, parse_float=_finite)
        if b"\\u" in body:
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair could never be written out again
    except RecursionError:
        raise MalformedRequest(f"The JSON is nested deeper than {_MAX_DEPTH} levels.") from None
    except ValueError as error:
        raise MalformedRequest(f"The body is not JSON: {error}.") from None
    if _deeper_than(value, _MAX_DEPTH):
        raise MalformedRequest(f"The JSON is nested deeper than {_MAX_DEPTH} levels.")
    return value


def _holds_too_many(body: bytes) -> bool:
    """Tell whether there are more values than a request needs, by the marks before them that stand in no string."""
    if _marks(body, 0, len(body)) <= _MOST_VALUES:
        return False
    marks = at = 0
    for number, string in enumerate(_STRING.finditer(body)):
        marks += _marks(body, at, string.start())
        at = string.end()
        if marks > _MOST_VALUES or number > 2 * _MOST_VALUES:
            return True
    return marks + _marks(body, at, len(body)) > _MOST_VALUES


def _marks(text: bytes, start: int, end: int) -> int:
    return sum(text.count(mark, start, end) for mark in b",[{")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:32]} is too large a number")
    return number


def _deeper_than(value: object, depth: int) -> bool:
    level: list[object] = [value]
    for _ in range(depth):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return False
    return True


def _form_fields(request: Request) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if not request.mimetype_params.get("boundary"):
        raise MalformedRequest("multipart/form-data needs a boundary; let your HTTP client write the Content-Type.")
    if not request.form and not request.files:
        raise MalformedRequest("The multipart body holds no part that can be read.")
    if stray := [name for name in request.files if name != "file"]:
        raise invalid(stray[0], "files are sent under the name `file`")
    for name, values in request.form.lists():
        if len(values) > 1 and name != "webhook_events":
            raise invalid(name, "was sent more than once")
        fields[name] = values if len(values) > 1 else values[0]
    for name in _JSON_FIELDS:
        if name in fields and _is_json(name, fields[name]):
            fields[name] = _json_field(name, fields[name])
    return fields


def _is_json(name: str, value: object) -> bool:
    """Tell whether a field holds JSON: names of events may also be separated by commas, or come one by one."""
    return name != "webhook_events" or (isinstance(value, str) and value.lstrip().startswith("["))


def _json_field(name: str, text: str) -> object:
    try:
        return _parsed(text.encode())
    except MalformedRequest as error:
        wrong = {"field": name, "message": error.message}
        raise MalformedRequest(f"The form field `{name}` must hold JSON.", errors=[wrong]) from None


def _checked(fields: dict[str, Any]) -> JobRequest:
    try:
        return JobRequest.model_validate(fields)
    except ValidationError as error:
        of_params = {name for params in PARAMS.values() for name in params.model_fields}
        raise invalid_fields(field_errors(error, known=JobRequest.model_fields, of_params=of_params)) from None


def _checked_params(job: JobRequest) -> dict[str, Any]:
    try:
        params = PARAMS[job.type].model_validate(job.params).model_dump(exclude_none=True)
    except ValidationError as error:
        raise invalid_fields(field_errors(error, "params", known=PARAMS[job.type].model_fields)) from None
    # Here and not in the model: workers read what an older process let in.
    if params.get("task") == "transcribe" and params["target_language"] != "en":
        raise invalid("params.target_language", "needs task translate; a transcript is in the language that is spoken")
    if "response_schema" in params:
        check_schema(params["response_schema"], "params.response_schema")
    return params


def check_schema(schema: Mapping[str, Any], field: str) -> None:
    """Check that a JSON Schema is one, and not too large to be kept. Raises `InvalidRequest` naming the field."""
    if len(json.dumps(schema, ensure_ascii=False).encode()) > _LARGEST_SCHEMA:
        raise invalid(field, f"takes more than {_LARGEST_SCHEMA >> 10} kB as JSON")
    try:
        _a_schema().validate(schema)
    except SchemaError as error:
        raise invalid(field, f"is no JSON Schema at {_json_path(error.instance_path)[:100]}") from None


@cache
def _a_schema() -> Draft202012Validator:
    """What says whether something is a schema: its patterns as Python knows them, whatever its names look like."""
    formats = dict.fromkeys(("uri", "uri-reference"), lambda _: True) | {"regex": _is_pattern}
    return Draft202012Validator({"$ref": _METASCHEMA}, validate_formats=True, formats=formats)


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError):
        return False
    return True


def _json_path(steps: Sequence[str | int]) -> str:
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)


def _from_json(number: int, one: JobInput, stored: Callable[[str], Upload]) -> Upload:
    if one.url is not None:
        return Upload(one.filename, url=one.url)
    if one.file_id is not None:
        try:
            upload = stored(one.file_id)
        except NotFound:
            raise invalid(f"input.{number}.file_id", "names no file of yours") from None
        return replace(upload, filename=one.filename or upload.filename)
    return Upload(one.filename, io.BytesIO(decoded(one.data or "", f"input.{number}.data")))


def decoded(data: str, field: str) -> bytes:
    """Decode base64, or a data: URL. Raises `InvalidRequest` naming the field."""
    encoded = data.partition(",")[2] if data.startswith("data:") else data
    if data.startswith("data:") and ";base64," not in data[:256]:
        raise invalid(field, "a data: URL must be base64")
    try:
        # Encoders that write for e-mail break their lines.
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        raise invalid(field, "is not base64") from None


def from_file(file: FileStorage) -> Upload:
    """Take a file of a form as an input."""
    return Upload((file.filename or "")[:255], cast(BinaryIO, file.stream))


def _check_number(count: int, max_inputs: int) -> None:
    if count > max_inputs:
        raise invalid("input", f"at most {max_inputs} inputs are allowed in one job")


def _check_inputs(job_type: JobType, params: Mapping[str, Any], count: int) -> None:
    if job_type == "chat":
        _check_chat_inputs(params, count)
        return
    if not count:
        raise invalid("input", "give at least one file, URL or base64 string")
    if job_type == "asr" and count > 1:
        raise invalid("input", "a job of type asr takes one recording; send one job for each")


def _check_chat_inputs(params: Mapping[str, Any], count: int) -> None:
    wanted = chat_media(params)
    if missing := [number for number, _ in wanted if number >= count]:
        raise invalid("params.messages", f"a part is input {missing[0]}, and the job has {count} (counted from 0)")
    if unused := set(range(count)) - {number for number, _ in wanted}:
        raise invalid("input", f"no message holds input {min(unused)}")
    if len(set(wanted)) > len({number for number, _ in wanted}):
        raise invalid("params.messages", "one input cannot be both a picture and a recording")


def media_type(job: Submission, number: int, stream: BinaryIO) -> str:
    """Find out what input `number` of a job holds by its first bytes. Raises `EmptyInput`, `UnsupportedMedia`."""
    head, filename = stream.read(HEAD_BYTES), job.uploads[number].filename
    stream.seek(0)
    if not head:
        raise EmptyInput(f"The file {filename!r} is empty." if filename else None)
    media = sniff(head)
    if media is None:
        raise UnsupportedMedia(f"{filename or 'The input'} is not an image, PDF or recording that can be read here.")
    if media.kind not in kinds_for(job.request.type, job.params, number):
        raise UnsupportedMedia(f"A job of type {job.request.type} cannot work on {media.mime} here.")
    return media.mime
