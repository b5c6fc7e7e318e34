"""Requests that are refused: each with its status, its code, the field that is wrong, and a sentence to act on."""

from __future__ import annotations

import base64
import json
import socket
from typing import Any

import pytest

from tests.conftest import ROOT, Service, png
from tests.refusals import Bad, check, wrong_field
from tests.scripted_jobs import accepted, asked

DATA = base64.b64encode(png()).decode()
JOB: dict[str, Any] = {"type": "ocr", "input": {"data": DATA}}
QUESTION: dict[str, Any] = {"type": "vqa", "input": {"data": DATA}, "params": {"question": "?"}}
TALK: dict[str, Any] = {
    "type": "asr",
    "input": {"data": base64.b64encode((ROOT / "examples/inputs/talk.mp3").read_bytes()).decode()},
}
JSON = {"Content-Type": "application/json"}
UNKNOWN = "/v1/jobs/job_01m83vfqy1b4m423kpgcvgtnep"


def body(content: bytes | str, code: str = "malformed_request") -> Bad:
    """A body sent as JSON, whatever it is."""
    return Bad(400, code, request={"content": content, "headers": JSON})


def fields(wrong: str, **changed: Any) -> Bad:
    """A JSON job in which one field is wrong; None leaves a field out."""
    job = {name: value for name, value in (JOB | changed).items() if value is not None}
    return Bad(422, "invalid_request", wrong, request={"json": job})


def params(wrong: str, job: dict[str, Any] = JOB, **changed: Any) -> Bad:
    """A job in which one param is wrong."""
    return Bad(422, "invalid_request", wrong, request={"json": job | {"params": job.get("params", {}) | changed}})


def form(bad: Bad, *files: tuple[str, bytes], name: str = "file", **data: Any) -> Bad:
    """A multipart job."""
    request = {"data": {"type": "ocr"} | data, "files": [(name, file) for file in files]}
    return Bad(bad.status, bad.code, bad.wrong, request=request)


def query(wrong: str, path: str, **arguments: Any) -> Bad:
    """A GET with a wrong argument."""
    return Bad(422, "invalid_request", wrong, "GET", path, {"params": arguments})


WRONG_MEDIA = Bad(415, "unsupported_media_type")
ONE = ("a.png", png())
BAD: dict[str, Bad] = {
    # The body as a whole
    "malformed JSON": body('{"type": "ocr"'),
    "no body": body(""),
    "not an object": body("[]"),
    "a bare string": body('"ocr"'),
    "not UTF-8": body(b'{"type": "\xe9"}'),
    "half a surrogate pair, raw": body(b'{"type": "ocr", "params": {"response_schema": {"title": "\xed\xa0\x80"}}}'),
    "UTF-16": body(json.dumps(JOB).encode("utf-16-le")),
    "half a surrogate pair": body(r'{"type": "ocr", "metadata": {"a": "\ud800"}}'),
    "NaN": body('{"type": "ocr", "params": {"temperature": NaN}}'),
    "Infinity": body('{"type": "ocr", "params": {"temperature": -Infinity}}'),
    "a number past every bound": body('{"type": "ocr", "params": {"temperature": 1e999}}'),
    "a number of 5 000 digits": body('{"type": "ocr", "cancel_after": ' + "1" * 5_000 + "}"),
    "too deep": body('{"a":' * 33 + "1" + "}" * 33),
    "deep enough to exhaust a parser": body("[" * 100_000),
    "more values than a request needs": body('{"type": "ocr", "input": [' + "{}," * 50_000 + "{}]}"),
    "more names than a request needs": body("{" + ",".join(f'"{n}": 0' for n in range(60_000)) + "}"),
    "more strings than a request needs, and no end": body('[["' + '" "' * 200_000),
    "a string of quotes without end": body("[" + "," * 60_000 + '"' + '\\"' * 1_000_000),
    "text": Bad(415, "unsupported_media_type", request={"content": "x", "headers": {"Content-Type": "text/plain"}}),
    "packed JSON": Bad(
        415,
        "unsupported_media_type",
        request={"content": b"\x1f\x8b\x08", "headers": JSON | {"Content-Encoding": "gzip"}},
    ),
    "no content type": Bad(415, "unsupported_media_type", request={"content": json.dumps(JOB)}),
    "a plain form": Bad(415, "unsupported_media_type", request={"data": {"type": "ocr"}}),
    "multipart without a boundary": Bad(
        400, "malformed_request", request={"content": "x", "headers": {"Content-Type": "multipart/form-data"}}
    ),
    "multipart that is none": Bad(
        400,
        "malformed_request",
        request={"content": "x", "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
    ),
    # Fields
    "no type": fields("type", type=None),
    "unknown type": fields("type", type="translate"),
    "unknown field": fields("inputs", inputs=[]),
    "no input": fields("input", input=None),
    "an empty list of inputs": fields("input", input=[]),
    "an input that is a string": fields("input", input=DATA),
    "too many inputs": fields("input", input=[{"data": DATA}] * 65),
    "an empty input": fields("input.0", input={}),
    "url and data": fields("input.0", input={"data": DATA, "url": "https://example.com/"}),
    "unknown field of an input": fields("input.1.path", input=[{"data": DATA}, {"path": "/etc/passwd"}]),
    "bad base64": fields("input.0.data", input={"data": "%%%"}),
    "base64 cut short": fields("input.1.data", input=[{"data": DATA}, {"data": DATA[:-1]}]),
    "a data URL that is not base64": fields("input.0.data", input={"data": "data:text/plain,hello"}),
    "a file name of 256 characters": fields("input.0.filename", input={"data": DATA, "filename": "x" * 256}),
    "an input from a file URL": fields("input.0.url", input={"url": "file:///etc/passwd"}),
    "an input URL without a host": fields("input.0.url", input={"url": "https://"}),
    "an input URL with a line break": fields("input.0.url", input={"url": "https://example.com/\r\nX: y"}),
    "an input URL with an impossible port": fields("input.0.url", input={"url": "https://example.com:99999/"}),
    "a webhook over FTP": fields("webhook_url", webhook_url="ftp://example.com/"),
    "a webhook that is no URL": fields("webhook_url", webhook_url="example.com"),
    "a webhook with a password": fields("webhook_url", webhook_url="https://user:secret@example.com/"),
    "an input URL with a user": fields("input.0.url", input={"url": "https://user@example.com/"}),
    "eleven webhook events": fields("webhook_events", webhook_events=["job.failed"] * 11),
    "an unknown webhook event": fields("webhook_events.0", webhook_events=["job.progress"]),
    "unknown priority": fields("priority", priority="urgent"),
    "17 metadata": fields("metadata", metadata={str(n): "" for n in range(17)}),
    "metadata that is no string": fields("metadata.a", metadata={"a": 1}),
    "metadata of 513 characters": fields("metadata.a", metadata={"a": "x" * 513}),
    "a metadata name of 65 characters": fields(f"metadata.{'x' * 65}.[key]", metadata={"x" * 65: ""}),
    "expires_in 1": fields("expires_in", expires_in=1),
    "expires_in of 31 days": fields("expires_in", expires_in=31 * 86_400),
    "cancel_after 0": fields("cancel_after", cancel_after=0),
    "cancel_after 1.5": fields("cancel_after", cancel_after=1.5),
    "unknown input_retention": fields("input_retention", input_retention="for_ever"),
    "params that are a list": fields("params", params=[]),
    # Params
    "unknown param": params("params.lang", lang="en"),
    "another type's param": params("params.question", question="?"),
    "wrong format": params("params.format", format="html"),
    "wrong detail": params("params.detail", detail="max"),
    "pages in words": params("params.pages", pages="all"),
    "page 0": params("params.pages", pages="0-3"),
    "pages backwards": params("params.pages", pages="3-1"),
    "temperature 3": params("params.temperature", temperature=3),
    "max_tokens 0": params("params.max_tokens", max_tokens=0),
    "an empty prompt": params("params.prompt", prompt=""),
    "missing question": fields("params.question", type="vqa"),
    "empty question": params("params.question", QUESTION, question=""),
    "blank question": params("params.question", QUESTION, question=" \n"),
    "a schema that is none": params("params.response_schema", QUESTION, response_schema={"type": "nonsense"}),
    "a schema with a pattern that is none": params(
        "params.response_schema", QUESTION, response_schema={"pattern": "("}
    ),
    "a schema of more than 64 kB": params(
        "params.response_schema", QUESTION, response_schema={"description": "x" * 70_000}
    ),
    "a schema that is a string": params("params.response_schema", QUESTION, response_schema="object"),
    "word timestamps": params("params.timestamps", TALK, timestamps="word"),
    "a language in words": params("params.language", TALK, language="english"),
    "unknown task": params("params.task", TALK, task="summarise"),
    "a translation that is not asked for": params("params.target_language", TALK, target_language="fr"),
    # Files
    "text named .pdf": form(WRONG_MEDIA, ("a.pdf", b"not a PDF at all")),
    "audio for ocr": form(WRONG_MEDIA, ("talk.mp3", b"ID3\x04\0\0\0\0\0\0")),
    "a picture for asr": form(WRONG_MEDIA, ONE, type="asr"),
    "empty file": form(Bad(422, "empty_input"), ("a.png", b"")),
    "empty base64": Bad(422, "empty_input", request={"json": JOB | {"input": {"data": ""}}}),
    "two files for asr": form(wrong_field("input"), ONE, ONE, type="asr"),
    "a file under another name": form(wrong_field("image"), ONE, name="image"),
    "a field sent twice": form(wrong_field("type"), ONE, type=["ocr", "vqa"]),
    "an unknown form field": form(wrong_field("lang"), ONE, lang="en"),
    "params that are not JSON": form(Bad(400, "malformed_request", "params"), ONE, params="pages=1"),
    "params with something behind": form(Bad(400, "malformed_request", "params"), ONE, params='{}, "x": 1'),
    "form params that are a list": form(wrong_field("params"), ONE, params="[]"),
    "a form without a file": Bad(422, "invalid_request", "input", request={"files": [("type", (None, "ocr"))]}),
    # Headers
    "an idempotency key of 256 characters": Bad(
        400, "malformed_request", request={"json": JOB, "headers": {"Idempotency-Key": "x" * 256}}
    ),
    # Addresses and arguments
    "unknown route": Bad(404, "not_found", method="GET", path="/v2/jobs"),
    "a slash too many": Bad(404, "not_found", method="GET", path="/v1/jobs/"),
    "unknown id": Bad(404, "not_found", method="GET", path=UNKNOWN),
    "an id that is none": Bad(404, "not_found", method="GET", path="/v1/jobs/%ff%00"),
    "result of an unknown id": Bad(404, "not_found", method="GET", path=UNKNOWN + "/result"),
    "cancelling an unknown id": Bad(404, "not_found", path=UNKNOWN + "/cancel"),
    "deleting an unknown id": Bad(404, "not_found", method="DELETE", path=UNKNOWN),
    "limit 0": query("limit", "/v1/jobs", limit=0),
    "limit 101": query("limit", "/v1/jobs", limit=101),
    "limit in words": query("limit", "/v1/jobs", limit="ten"),
    "limit in other digits": query("limit", "/v1/jobs", limit="٣"),
    "unknown status": query("status", "/v1/jobs", status="done"),
    "list of an unknown type": query("type", "/v1/jobs", type="pdf"),
    "a page after what is no id": query("after", "/v1/jobs", after="2"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_bad_request_is_refused_with_its_reason(service: Service, bad: Bad) -> None:
    """Nothing becomes a job that cannot be one, and the caller learns why."""
    check(service.http.request(bad.method, bad.path, **bad.request), bad)


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ("wait=abc", "wait"),
        ("wait=-1", "wait"),
        ("wait=61", "wait"),
        ("wait=00000000070", "wait"),
        ("wait=1.5", "wait"),
        ("wait=", "wait"),
        ("include=x", "include"),
    ],
)
def test_bad_arguments_of_a_job(service: Service, arguments: str, wrong: str) -> None:
    """`wait` is 0 to 60 whole seconds; `include` names what there is."""
    response = service.http.get(f"/v1/jobs/{accepted(service.submit())['id']}?{arguments}")

    check(response, wrong_field(wrong))


def test_a_bad_format_of_a_result(service: Service) -> None:
    """An unknown format is a wrong argument."""
    job = service.ended(asked(service, "?"))

    check(service.http.get(job["links"]["result"], params={"format": "docx"}), wrong_field("format"))


def test_all_that_is_wrong_is_told_at_once(service: Service) -> None:
    """`errors` lists every field; none of the values are repeated."""
    secret = "s3cr3t-value"
    job = {"type": secret, "priority": secret, "expires_in": secret, "metadata": {"a": {"b": secret}}}

    response = service.http.post("/v1/jobs", json=job)

    problem = response.json()
    assert [wrong["field"] for wrong in problem["errors"]] == ["type", "priority", "metadata.a", "expires_in"]
    assert problem["detail"].endswith("(and 3 more, see errors)")
    assert secret not in response.text


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        pytest.param({"question": "?"}, "belongs into `params`", id="a param outside"),
        pytest.param({"inputs": []}, "there are type, input, params,", id="a field"),
        pytest.param({"params": {"pagez": "1"}}, "there are pages,", id="a param"),
    ],
)
def test_a_name_that_is_not_known_is_told_with_those_that_are(
    service: Service, changed: dict[str, Any], told: str
) -> None:
    """Of a job's fields, or of its type's params."""
    refused = service.http.post("/v1/jobs", json=JOB | changed)

    assert refused.status_code == 422
    assert told in refused.json()["errors"][0]["message"]


def test_an_answer_does_not_grow_with_what_is_wrong(service: Service) -> None:
    """A hundred wrong fields are told, each by the beginning of its name."""
    job = JOB | {f"{n}{'x' * 10_000}": 0 for n in range(1_000)}

    response = service.http.post("/v1/jobs", json=job)

    assert len(response.json()["errors"]) == 100
    assert len(response.content) < 50_000


def test_a_text_may_be_full_of_marks(service: Service) -> None:
    """What stands in a string is no value."""
    words = '[{,,\\"' * 3_333
    job = QUESTION | {
        "params": {"question": words, "system": words},
        "metadata": {str(n): "," * 512 for n in range(16)},
    }
    job["input"] = [{"data": DATA, "filename": "," * 250} for _ in range(64)]
    assert sum(map(json.dumps(job).count, ",[{")) > 50_000

    assert service.http.post("/v1/jobs", json=job).status_code == 202


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/jobs", {"GET", "POST"}),
        ("DELETE", "/v1/jobs", {"GET", "POST"}),
        ("PATCH", UNKNOWN, {"GET", "DELETE"}),
        ("POST", UNKNOWN, {"GET", "DELETE"}),
        ("GET", UNKNOWN + "/cancel", {"POST"}),
        ("POST", UNKNOWN + "/result", {"GET"}),
        ("POST", "/readyz", {"GET"}),
        ("BREW", "/v1/jobs", {"GET", "POST"}),
    ],
)
def test_a_wrong_method_says_which_are_right(service: Service, method: str, path: str, allowed: set[str]) -> None:
    """405 with `Allow`."""
    response = service.http.request(method, path)

    check(response, Bad(405, "method_not_allowed"))
    assert set(response.headers["Allow"].split(", ")) - {"HEAD", "OPTIONS"} == allowed


@pytest.mark.parametrize("sent", ["JSON", "multipart"])
def test_an_upload_that_breaks_off_is_no_job(service: Service, sent: str) -> None:
    """Half a body is refused, however its parts look."""
    kind: dict[str, Any] = {"json": JOB} if sent == "JSON" else {"data": {"type": "ocr"}, "files": {"file": png()}}
    whole = service.http.build_request("POST", "/v1/jobs", **kind)
    content, url = whole.read(), service.http.base_url
    head = "".join(f"{name}: {value}\r\n" for name, value in whole.headers.items())
    with socket.create_connection((url.host, url.port or 80), timeout=20) as connection:
        connection.sendall(f"POST /v1/jobs HTTP/1.1\r\n{head}\r\n".encode() + content[:-40])
        connection.shutdown(socket.SHUT_WR)

        assert connection.recv(100).split(b"\r\n")[0].startswith(b"HTTP/1.1 400 ")
