"""How the routes in OpenAI's shape refuse a request: its error object, its types and codes, and the field by name."""

from __future__ import annotations

from typing import Any

import pytest

from phi4.params import MOST_CHAT_CHARACTERS
from tests.conftest import Service, png
from tests.peers import MODEL, TALK, chat, data_url, picture, post, sound, tag, tagged, text, user
from tests.test_bad_inputs import bomb

ROUTE = "/v1/chat/completions"
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]


def part(**fields: Any) -> dict[str, Any]:
    """A conversation of one piece."""
    return chat({"role": "user", "content": [fields]})


def schema(given: Any, **more: Any) -> dict[str, Any]:
    """A conversation to be answered as JSON."""
    return chat("?", response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": given, **more}})


FIELDS: list[tuple[dict[str, Any], str, str]] = [
    ({"model": MODEL}, "messages", "missing_required_parameter"),
    ({"messages": [user("hi")]}, "model", "missing_required_parameter"),
    (chat("hi") | {"model": 3}, "model", "invalid_type"),
    (chat(), "messages", "empty_array"),
    (chat() | {"messages": "hi"}, "messages", "invalid_type"),
    (chat() | {"messages": ["hi"]}, "messages[0]", "invalid_type"),
    (chat({"role": "user"}), "messages[0].content", "missing_required_parameter"),
    (chat({"role": "assistant", "content": None}), "messages[0].content", "invalid_type"),
    (chat({"role": "tool", "content": "x"}), "messages[0].role", "invalid_value"),
    (chat(user("hi") | {"tool_calls": TOOLS}), "messages[0].tool_calls", "unknown_parameter"),
    (chat({"role": "user", "content": []}), "messages[0].content", "empty_array"),
    (part(type="video_url"), "messages[0].content[0].type", "invalid_value"),
    (part(type="text"), "messages[0].content[0]", "invalid_value"),
    (part(type="refusal", refusal="no"), "messages[0].content[0].type", "invalid_value"),
    (part(type="image_url", image_url={}), "messages[0].content[0].image_url.url", "missing_required_parameter"),
    (chat(user(picture(detail="finest"))), "messages[0].content[0].image_url.detail", "invalid_value"),
    (chat(user(picture("ftp://a/b"))), "messages[0].content[0].image_url.url", "invalid_image_url"),
    (chat(user(picture("/etc/passwd"))), "messages[0].content[0].image_url.url", "invalid_image_url"),
    (chat(user(picture("https://a/" + "b" * 5_000))), "messages[0].content[0].image_url.url", "invalid_image_url"),
    (chat(user(picture("data:image/png,abc"))), "messages[0].content[0].image_url.url", "invalid_value"),
    (chat(user(picture("data:image/png;base64,%%"))), "messages[0].content[0].image_url.url", "invalid_value"),
    (chat(user(picture("data:image/png;base64,"))), "messages[0].content[0].image_url.url", "invalid_value"),
    (chat(user(sound(kind="ogg"))), "messages[0].content[0].input_audio.format", "invalid_value"),
    (
        part(type="input_audio", input_audio={"data": "%", "format": "wav"}),
        "messages[0].content[0].input_audio.data",
        "invalid_value",
    ),
    (part(type="file", file={"file_id": "file-1"}), "messages[0].content[0].file.file_id", "invalid_value"),
    (part(type="file", file={"filename": "a"}), "messages[0].content[0].file", "invalid_value"),
    (part(type="file", file={"file_id": "a", "file_data": "b"}), "messages[0].content[0].file", "invalid_value"),
    (chat({"role": "system", "content": [picture()]}), "messages[0].content[0]", "invalid_value"),
    (chat(user(*[picture()] * 65)), "messages", "array_above_max_length"),
    (chat("x" * (MOST_CHAT_CHARACTERS + 1)), "messages", "invalid_value"),
    (chat("hi", max_tokens=0), "max_tokens", "integer_below_min_value"),
    (chat("hi", max_completion_tokens=131_073), "max_completion_tokens", "integer_above_max_value"),
    (chat("hi", max_tokens="many"), "max_tokens", "invalid_type"),
    (chat("hi", max_tokens=1, max_completion_tokens=2), "max_tokens", "invalid_value"),
    (chat("hi", temperature=2.1), "temperature", "decimal_above_max_value"),
    (chat("hi", temperature=-0.1), "temperature", "decimal_below_min_value"),
    (chat("hi", top_p=0), "top_p", "decimal_below_min_value"),
    (chat("hi", top_p=1.5), "top_p", "decimal_above_max_value"),
    (chat("hi", seed=2**63), "seed", "integer_above_max_value"),
    (chat("hi", seed=0.5), "seed", "invalid_value"),
    (chat("hi", stop=["a"] * 5), "stop", "array_above_max_length"),
    (chat("hi", stop=[""]), "stop[0]", "empty_string"),
    (chat("hi", stop=3), "stop", "invalid_type"),
    (chat("hi", stream="perhaps"), "stream", "invalid_type"),
    (chat("hi", stream_options={"include_usage": True}), "stream_options", "invalid_value"),
    (chat("hi", stream=True, stream_options={"x": 1}), "stream_options.x", "unknown_parameter"),
    (chat("hi", metadata={"a": 1}), "metadata.a", "invalid_type"),
    (chat("hi", response_format={"type": "xml"}), "response_format.type", "invalid_value"),
    (chat("hi", response_format={"type": "json_schema"}), "response_format", "invalid_value"),
    (schema("x"), "response_format.json_schema.schema", "invalid_type"),
    (schema({"type": "thing"}), "response_format.json_schema.schema", "invalid_value"),
    (chat("hi", n=2), "n", "unsupported_parameter"),
    (chat("hi", tools=TOOLS), "tools", "unsupported_parameter"),
    (chat("hi", tool_choice="required"), "tool_choice", "unsupported_parameter"),
    (chat("hi", functions=[{"name": "f"}]), "functions", "unsupported_parameter"),
    (chat("hi", logprobs=True), "logprobs", "unsupported_parameter"),
    (chat("hi", top_logprobs=3), "top_logprobs", "unsupported_parameter"),
    (chat("hi", logit_bias={"5": 1}), "logit_bias", "unsupported_parameter"),
    (chat("hi", frequency_penalty=0.1), "frequency_penalty", "unsupported_parameter"),
    (chat("hi", modalities=["text", "audio"]), "modalities", "unsupported_parameter"),
    (chat("hi", audio={"voice": "a", "format": "wav"}), "audio", "unsupported_parameter"),
    (chat("hi", reasoning_effort="high"), "reasoning_effort", "unsupported_parameter"),
    (chat("hi", web_search_options={}), "web_search_options", "unsupported_parameter"),
    (chat("hi", top_k=5), "top_k", "unknown_parameter"),
]


@pytest.mark.parametrize(("body", "param", "code"), FIELDS, ids=[f"{param} {code}" for _, param, code in FIELDS])
def test_a_wrong_field_is_refused_by_name(service: Service, body: Any, param: str, code: str) -> None:
    """400, `invalid_request_error`, the field as OpenAI spells it, and a code to program against."""
    response = post(service, body)

    refused(response, 400, "invalid_request_error", param, code)
    assert response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (chat(user(picture(b"not a picture"))), "unsupported_media_type"),
        (chat(user(picture(TALK))), "unsupported_media_type"),
        (chat(user(sound(png()))), "unsupported_media_type"),
        (chat(user(picture(png()[:200]))), "unreadable_image"),
        (chat(user(picture(bomb()))), "image_too_large"),
        (chat(user(picture(data_url(b"%PDF-1.4 nothing", "application/pdf")))), "unreadable_pdf"),
        (chat(user(sound(TALK[:900]))), "unreadable_audio"),
        (chat("cannot"), "engine_cannot_answer"),
        (chat(user(text("cannot"), picture())), "engine_cannot_answer"),
    ],
)
def test_what_cannot_be_worked_on_is_the_callers(service: Service, body: Any, code: str) -> None:
    """400: trying again would not help."""
    refused(post(service, body), 400, "invalid_request_error", None, code)


def test_what_fails_here_is_ours(service: Service) -> None:
    """500, which clients try again."""
    refused(post(service, chat("fail")), 500, "server_error", None, "engine_failed")


def test_an_unknown_model_is_named(service: Service) -> None:
    """404, and the message tells the name to use."""
    for path in (ROUTE, "/v1/models/gpt-4o"):
        method = "POST" if path == ROUTE else "GET"
        response = service.http.request(method, path, json=chat("hi") | {"model": "gpt-4o"})
        refused(response, 404, "invalid_request_error", None, "model_not_found")
        assert MODEL in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "request_of", "status", "code"),
    [
        ("POST", ROUTE, {"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "malformed_request"),
        ("POST", ROUTE, {"content": b"[]", "headers": {"Content-Type": "application/json"}}, 400, "malformed_request"),
        ("POST", ROUTE, {"data": {"model": MODEL}}, 400, "unsupported_media_type"),
        ("GET", ROUTE, {}, 405, "method_not_allowed"),
        ("POST", "/v1/models", {}, 405, "method_not_allowed"),
        ("POST", "/v1/audio/speech", {}, 404, "not_found"),
        ("POST", "/v1/responses", {"json": {"model": MODEL, "input": "hi"}}, 404, "not_found"),
        ("POST", "/v1/embeddings", {"json": {"model": MODEL, "input": "hi"}}, 404, "not_found"),
        ("GET", "/v1/chat/completions/chatcmpl-1", {}, 404, "not_found"),
    ],
)
def test_every_error_of_these_paths_has_this_shape(
    service: Service, method: str, path: str, request_of: Any, status: int, code: str
) -> None:
    """Also where no route is."""
    refused(service.http.request(method, path, **request_of), status, "invalid_request_error", None, code)


def test_a_job_that_is_deleted_ends_its_request(service: Service) -> None:
    """404 at the end of the stream: there is nothing to wait for any more."""
    metadata = tag()
    body = chat("speak 0.5 a|b|c|d", stream=True, metadata=metadata)
    with service.http.stream("POST", ROUTE, json=body) as response:
        lines = response.iter_lines()
        next(lines)
        service.http.delete(f"/v1/jobs/{tagged(service, metadata)['id']}")
        rest = [line for line in lines if line]

    assert '"code": "not_found"' in rest[-1]


def refused(response: Any, status: int, kind: str, param: str | None, code: str) -> None:
    """Check that an answer is OpenAI's error object."""
    assert response.headers["Content-Type"] == "application/json"
    assert response.json().keys() == {"error"}
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (response.status_code, error["type"], error["param"], error["code"]) == (status, kind, param, code), error
