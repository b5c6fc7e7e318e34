"""POST /v1/chat/completions and GET /v1/models, with OpenAI's own client: sync, async and streaming."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from tests.api_alone import api_alone
from tests.conftest import Service, eventually, pdf, png
from tests.peers import (
    MODEL,
    address,
    chat,
    data_url,
    openai_client,
    picture,
    post,
    silence,
    sound,
    tag,
    tagged,
    text,
    user,
)
from tests.servers import Reply, web


@pytest.fixture
def client(service: Service) -> Iterator[openai.OpenAI]:
    """OpenAI's client."""
    with openai_client(service) as client:
        yield client


def words(chunks: list[ChatCompletionChunk]) -> list[str]:
    """The pieces of text of a stream."""
    return [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]


def test_the_model_is_listed_and_shown(client: openai.OpenAI) -> None:
    """One model, under the name it is served by, and also by that of its files."""
    (model,) = client.models.list().data

    assert (model.id, model.object) == (MODEL, "model")
    assert client.models.retrieve(MODEL) == model
    assert client.models.retrieve("microsoft/Phi-4-multimodal-instruct") == model
    with pytest.raises(openai.NotFoundError) as refused:
        client.models.retrieve("gpt-4o")
    assert refused.value.code == "model_not_found"


def test_a_conversation_is_answered(service: Service, client: openai.OpenAI) -> None:
    """Turns of every role come to the engine; usage counts tokens; the job is listed as any other."""
    metadata = tag()
    messages = [
        {"role": "developer", "content": "be brief"},
        user("hi"),
        # As clients send an answer back.
        {"role": "assistant", "content": "hello", "refusal": None, "tool_calls": None, "annotations": []},
        {"role": "user", "content": [text("and now?")], "name": "ann"},
    ]

    answer = client.chat.completions.create(**chat(*messages, metadata=metadata))

    (choice,) = answer.choices
    assert choice.message.content == "[system: be brief] [user: hi] [assistant: hello] [user: and now?]"
    assert (choice.message.role, choice.finish_reason, choice.index) == ("assistant", "stop", 0)
    assert (answer.object, answer.model) == ("chat.completion", MODEL)
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 3, 10)
    job = tagged(service, metadata)
    assert answer.id == job["id"].replace("job_", "chatcmpl-")
    assert (job["type"], job["status"], answer.created) == ("chat", "completed", job["created_at"])


def test_pictures_documents_and_sound_are_seen_and_heard(client: openai.OpenAI) -> None:
    """As data: URLs and base64; a PDF is seen as its pages."""
    document = {"type": "file", "file": {"filename": "a.pdf", "file_data": data_url(pdf(1), "application/pdf")}}
    pieces = [picture(png(60, 40), detail="high"), text("and"), document, sound(silence(2), "wav")]

    answer = client.chat.completions.create(**chat(user(*pieces)))

    assert answer.choices[0].message.content == "[user: picture 60x40 and picture 695x1042 sound 2.00 s]"


def test_a_picture_is_fetched_by_its_url(client: openai.OpenAI) -> None:
    """The service fetches it, through the guard of all its fetching."""
    with web() as server:
        server.answer = lambda _: Reply(body=png(70, 50))
        answer = client.chat.completions.create(**chat(user(picture(f"{server.url}/a.png"), text("?"))))
        server.answer = lambda _: Reply(status=404)
        with pytest.raises(openai.BadRequestError) as missing:
            client.chat.completions.create(**chat(user(picture(f"{server.url}/b.png"))))
    with pytest.raises(openai.BadRequestError) as private:
        client.chat.completions.create(**chat(user(picture("http://10.0.0.1/a.png"))))

    assert answer.choices[0].message.content == "[user: picture 70x50 ?]"
    assert [error.value.code for error in (missing, private)] == ["fetch_failed", "url_forbidden"]


def test_an_uploaded_file_is_shown_by_its_id(client: openai.OpenAI) -> None:
    """As often as it is asked about."""
    stored = client.files.create(file=("a.pdf", pdf(1)), purpose="user_data")
    message = user({"type": "file", "file": {"file_id": stored.id}})

    answers = [client.chat.completions.create(**chat(message)) for _ in range(2)]

    assert [a.choices[0].message.content for a in answers] == ["[user: picture 417x625]"] * 2


def test_how_to_answer_is_passed_on(client: openai.OpenAI) -> None:
    """Sampling and limits reach the engine; without them OpenAI's defaults hold."""
    how: dict[str, Any] = {"temperature": 0.5, "top_p": 0.9, "seed": 3, "stop": "x", "max_completion_tokens": 9}

    given = client.chat.completions.create(**chat("how", **how))
    default = client.chat.completions.create(**chat(user(text("how"), picture(detail="low")), max_tokens=8))

    assert json.loads(given.choices[0].message.content or "") == [9, 0.5, 0.9, 3, ["x"], "auto"]
    assert json.loads(default.choices[0].message.content or "") == [8, 1.0, 1.0, None, [], "low"]
    assert given.choices[0].finish_reason == "length"


def test_json_is_held_to_a_schema(client: openai.OpenAI) -> None:
    """`json_schema` gives its schema to the engine, `json_object` asks for any object."""
    schema = {"type": "object", "properties": {"total": {"type": "number"}}}
    held = {"type": "json_schema", "json_schema": {"name": "bill", "schema": schema, "strict": True}}

    answers = [
        client.chat.completions.create(**chat("?", response_format=wanted))
        for wanted in (held, {"type": "json_object"})
    ]

    told = [json.loads(answer.choices[0].message.content or "")["schema"] for answer in answers]
    assert told == [schema, {"type": "object"}]


def test_what_clients_send_without_effect_is_accepted(client: openai.OpenAI) -> None:
    """Fields that ask for nothing, or for what is not this service's business."""
    harmless: dict[str, Any] = {
        "user": "u",
        "store": False,
        "metadata": {"a": "b"},
        "parallel_tool_calls": True,
        "service_tier": "auto",
        "n": 1,
        "tools": [],
        "tool_choice": "auto",
        "logprobs": False,
        "logit_bias": {},
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "modalities": ["text"],
        "stream": False,
        "seed": None,
        "response_format": {"type": "text"},
    }

    assert client.chat.completions.create(**chat("hi", **harmless)).choices[0].message.content == "[user: hi]"


def test_a_stream_tells_words_as_they_come(client: openai.OpenAI) -> None:
    """Pieces of text, the reason of the end, and the usage when it was asked for."""
    chunks = list(
        client.chat.completions.create(
            **chat("speak 0.4 one|two|three", stream=True, stream_options={"include_usage": True})
        )
    )

    assert words(chunks) == ["one", "two", "three"]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-2:] == [None, "stop"]
    assert {(c.id, c.object, c.model) for c in chunks} == {(chunks[0].id, "chat.completion.chunk", MODEL)}
    assert [c.usage is not None for c in chunks] == [False] * (len(chunks) - 1) + [True]
    assert (chunks[-1].choices, chunks[-1].usage and chunks[-1].usage.total_tokens) == ([], 9)


def test_a_stream_ends_as_the_standard_client_expects(service: Service) -> None:
    """Server-Sent Events without names, and `[DONE]` at last; no usage unless asked for."""
    with service.http.stream("POST", "/v1/chat/completions", json=chat("hi", stream=True)) as response:
        lines = [line for line in response.iter_lines() if line]

    assert response.headers["Content-Type"].startswith("text/event-stream")
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    assert all("usage" not in json.loads(line[6:]) for line in lines[:-1])


def test_an_error_before_the_first_word_has_its_own_status(client: openai.OpenAI) -> None:
    """A stream that cannot begin is refused as any request is."""
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**chat("cannot", stream=True))

    assert (refused.value.code, refused.value.type) == ("engine_cannot_answer", "invalid_request_error")


def test_an_error_after_the_first_word_is_the_last_of_the_stream(service: Service, client: openai.OpenAI) -> None:
    """The client raises it in the middle of its loop."""
    metadata = tag()
    stream = client.chat.completions.create(**chat("speak 0.3 a|b|c|d|e|f", stream=True, metadata=metadata))
    job = tagged(service, metadata)
    next(iter(stream))
    service.http.post(f"/v1/jobs/{job['id']}/cancel")

    with pytest.raises(openai.APIError) as broken:
        list(stream)

    assert broken.value.code == "cancelled"


def test_async_clients_are_answered_side_by_side(service: Service) -> None:
    """Answers and streams of several requests at once."""

    async def talk() -> tuple[list[str | None], str]:
        async with openai.AsyncOpenAI(base_url=f"{address(service)}/v1", api_key="unused", max_retries=0) as client:
            whole = [client.chat.completions.create(**chat(f"number {n}")) for n in range(4)]
            stream = await client.chat.completions.create(**chat("speak 0.2 a|b|c", stream=True))
            pieces = words([chunk async for chunk in stream])
            return [a.choices[0].message.content for a in await asyncio.gather(*whole)], "".join(pieces)

    answers, streamed = asyncio.run(talk())

    assert answers == [f"[user: number {n}]" for n in range(4)]
    assert streamed == "abc"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_cancels_its_job(service: Service, stream: bool) -> None:
    """Nobody would read the answer; the engine is free for others."""
    metadata = tag()

    with pytest.raises(httpx.ReadTimeout):
        post(service, chat("sleep 60", stream=stream, metadata=metadata), timeout=1)

    job = tagged(service, metadata)
    ended = service.ended(job["id"])
    assert (ended["status"], ended["error"]["code"]) == ("cancelled", "cancelled")


def test_a_client_that_leaves_in_the_middle_of_a_stream_cancels_its_job(service: Service) -> None:
    """Also when text was flowing."""
    metadata = tag()
    with openai_client(service) as client:
        stream = client.chat.completions.create(
            **chat("speak 0.3 " + "|".join("a" * 100), stream=True, metadata=metadata)
        )
        next(iter(stream))
        stream.close()

    assert service.ended(tagged(service, metadata)["id"])["status"] == "cancelled"


def test_inputs_are_erased_when_the_answer_is_there(service: Service, client: openai.OpenAI) -> None:
    """What a request brought is kept no longer than it is needed."""
    metadata = tag()
    client.chat.completions.create(**chat(user(picture(), text("hi")), metadata=metadata))
    folder = f"blobs/*/{tagged(service, metadata)['id']}/input-*"

    eventually(lambda: not list(service.data_dir.glob(folder)), what="the end of the input")


def test_a_request_that_finds_no_place_or_no_worker_is_told_to_come_back(valkey: str, tmp_path: Any) -> None:
    """429 when too many wait, 503 when nobody would answer, both at once and with Retry-After; no job is made."""
    body = chat("hi")
    with api_alone(valkey, tmp_path, PHI4_MAX_WAITING_REQUESTS="0", PHI4_MAX_EVENT_STREAMS="1") as narrow:
        full = post(narrow, body)
        unserved = post(narrow, body | {"stream": True})
        again = post(narrow, body | {"stream": True})
        jobs = narrow.http.get("/v1/jobs").json()["data"]

    assert (full.status_code, full.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    for response in (unserved, again):
        assert (response.status_code, response.json()["error"]["code"]) == (503, "no_worker_for_type")
    assert all(int(r.headers["Retry-After"]) > 0 for r in (full, unserved, again))
    assert jobs == []
