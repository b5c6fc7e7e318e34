"""OpenAI's own client against the vLLM engine: sync, async, streams, schemas, recordings, batches, refusals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.conftest import Service, eventually
from tests.peers import (
    INVOICE,
    MODEL,
    address,
    chat,
    data_url,
    openai_client,
    picture,
    silence,
    sound,
    tag,
    tagged,
    text,
    user,
)
from tests.vllm_on_cpu import LASTING, exactly

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test` runs this file in .venv-vllm")

pytestmark = pytest.mark.timeout(600)
#: The same words each time, of weights that mean nothing.
STEADY: dict[str, Any] = {"temperature": 0, "max_tokens": 12}
#: Random weights would write an integer of any length.
BILL = {
    "type": "object",
    "properties": {"total": {"enum": [7, 12, 900]}},
    "required": ["total"],
    "additionalProperties": False,
}


@pytest.fixture
def client(vllm_service: Service) -> Iterator[openai.OpenAI]:
    """OpenAI's client."""
    with openai_client(vllm_service, seconds=240) as client:
        yield client


def seen() -> dict[str, Any]:
    """A question about a picture."""
    return user(text("What is this?"), picture(data_url(INVOICE, "image/jpeg")))


def lasting(**fields: Any) -> dict[str, Any]:
    """A request that keeps the engine busy for some seconds."""
    schema = {"type": "json_schema", "json_schema": {"name": "long", "schema": exactly(LASTING)}}
    return chat("?", response_format=schema, max_tokens=2 * LASTING, **fields)


def test_words_and_pictures_are_answered(client: openai.OpenAI) -> None:
    """Plain chat and a picture, with tokens counted; pictures cost more of them."""
    spoken = client.chat.completions.create(**chat("Hello", **STEADY))
    shown = client.chat.completions.create(**chat({"role": "system", "content": "Be brief."}, seen(), **STEADY))

    assert spoken.model == shown.model == MODEL
    assert spoken.usage is not None
    assert shown.usage is not None
    assert shown.usage.prompt_tokens > spoken.usage.prompt_tokens + 200
    for answer in (spoken, shown):
        assert answer.usage
        assert 0 < answer.usage.completion_tokens <= 12
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
        assert answer.choices[0].finish_reason in ("stop", "length")


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI) -> None:
    """Piece by piece, with the same usage and the same end."""
    asked = chat(seen(), **STEADY)
    whole = client.chat.completions.create(**asked)
    usage = {"include_usage": True}

    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options=usage))

    told = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert told == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason


def test_json_fits_its_schema(client: openai.OpenAI) -> None:
    """Held to by the engine, whatever the weights would say."""
    held = {"type": "json_schema", "json_schema": {"name": "bill", "schema": BILL, "strict": True}}

    answer = client.chat.completions.create(**chat(seen(), response_format=held, max_tokens=200, temperature=0))

    assert json.loads(answer.choices[0].message.content or "")["total"] in (7, 12, 900)


def test_chance_with_a_seed_comes_out_the_same(client: openai.OpenAI) -> None:
    """`seed`, `temperature` and `top_p` reach the engine, and `stop` cuts the answer."""
    how: dict[str, Any] = {"temperature": 1.5, "top_p": 0.9, "max_completion_tokens": 12}

    said = [client.chat.completions.create(**chat("Hello", seed=seed, **how)) for seed in (7, 7, 8)]

    texts = [answer.choices[0].message.content or "" for answer in said]
    assert texts[0] == texts[1] != texts[2]
    cut = client.chat.completions.create(**chat("Hello", seed=7, stop=[texts[0][-2:]], **how))
    assert texts[0].startswith((cut.choices[0].message.content or "").strip())
    assert texts[0] != cut.choices[0].message.content


def test_async_clients_are_answered_side_by_side(vllm_service: Service) -> None:
    """Whole and as streams, on one loop."""

    async def run() -> tuple[list[Any], str]:
        base = f"{address(vllm_service)}/v1"
        async with openai.AsyncOpenAI(base_url=base, api_key="unused", max_retries=0, timeout=240) as client:
            asked = chat("Hello", **STEADY)
            answers = await asyncio.gather(*(client.chat.completions.create(**asked) for _ in range(6)))
            told = ""
            async for chunk in await client.chat.completions.create(**asked, stream=True):
                told += chunk.choices[0].delta.content or ""
            return [answer.choices[0].message.content for answer in answers], told

    texts, told = asyncio.run(run())
    assert texts == [told] * 6


def test_sound_is_heard(client: openai.OpenAI) -> None:
    """A recording costs tokens of its own beside the words."""
    alone = client.chat.completions.create(**chat(user(text("What is said?")), **STEADY))
    heard = client.chat.completions.create(**chat(user(sound(silence(2), "wav"), text("What is said?")), **STEADY))

    assert alone.usage is not None
    assert heard.usage is not None
    assert heard.usage.prompt_tokens > alone.usage.prompt_tokens + 20


def test_recordings_go_through_their_routes(client: openai.OpenAI) -> None:
    """Silence has no words, which is all that weights that mean nothing can be held to; words' times are refused."""
    file = ("a.wav", silence(2))
    subtitles = client.audio.transcriptions.create(model="whisper-1", file=file, response_format="vtt", language="en")
    with pytest.deprecated_call():  # by OpenAI, for its own model
        translated = client.audio.translations.create(model=MODEL, file=file)
    with pytest.raises(openai.BadRequestError) as refused:
        client.audio.transcriptions.create(
            model=MODEL, file=file, response_format="verbose_json", timestamp_granularities=["word"]
        )

    assert str(subtitles).strip() == "WEBVTT"
    assert translated.text == ""
    assert refused.value.param == "timestamp_granularities"


def test_a_batch_is_answered(client: openai.OpenAI) -> None:
    """Its lines go through the same engine; a line that is refused is in the error file."""
    bodies = {"a": chat("Hello", **STEADY), "b": chat(seen(), **STEADY), "c": chat("Hello", logprobs=True)}
    lines = [
        {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}
        for name, body in bodies.items()
    ]
    text = "\n".join(map(json.dumps, lines)).encode()
    file = client.files.create(file=("lines.jsonl", text), purpose="batch")
    made = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")

    batch = eventually(
        lambda: (b := client.batches.retrieve(made.id)).status == "completed" and b, seconds=60, what="the batch's end"
    )

    def answered(file_id: str) -> list[str]:
        return [json.loads(line)["custom_id"] for line in client.files.content(file_id).text.splitlines()]

    assert (answered(batch.output_file_id), answered(batch.error_file_id)) == (["a", "b"], ["c"])


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "unsupported_parameter"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"temperature": 9}, "temperature", "decimal_above_max_value"),
        ({"messages": [user("word " * 10_000)]}, None, "context_length_exceeded"),
    ],
)
def test_refusals_name_what_is_wrong(client: openai.OpenAI, fields: Any, param: str | None, code: str) -> None:
    """In OpenAI's shape, as the client reads it."""
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**chat("Hello") | fields)

    assert (refused.value.param, refused.value.code) == (param, code)


def test_a_client_that_leaves_frees_the_engine(vllm_service: Service, client: openai.OpenAI) -> None:
    """In the middle of a stream: the job is cancelled and nothing stays in flight."""
    metadata = tag()
    stream = client.chat.completions.create(**lasting(stream=True, metadata=metadata))
    next(iter(stream))

    stream.close()

    eventually(lambda: tagged(vllm_service, metadata)["status"] == "cancelled", what="the cancel")
    eventually(lambda: _in_flight(vllm_service) == 0, what="a free engine")


def _in_flight(service: Service) -> int:
    return sum(int(w["in_flight"]) for w in service.http.get("/health").json()["workers"])
