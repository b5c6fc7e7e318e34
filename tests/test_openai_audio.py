"""POST /v1/audio/transcriptions and /translations, with OpenAI's own client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.conftest import Service
from tests.peers import MODEL, TALK, address, openai_client, png, silence

FILE = ("talk.mp3", TALK)
SEGMENTS = [("one", 0.576, 9.088), ("two", 9.088, 17.6), ("one", 18.24, 25.008), ("two", 25.008, 31.776)]


@pytest.fixture
def client(service: Service) -> Iterator[openai.OpenAI]:
    """OpenAI's client."""
    with openai_client(service) as client:
        yield client


@pytest.mark.parametrize("model", [MODEL, "whisper-1"])
def test_a_recording_is_written_down(client: openai.OpenAI, model: str) -> None:
    """Text and the length that was heard; the name that clients have built in is one of the model's."""
    answer = client.audio.transcriptions.create(model=model, file=FILE)

    assert answer.text == "one two one two"
    assert answer.usage is not None
    assert answer.usage.type == "duration"
    assert answer.usage.seconds == pytest.approx(32.723, abs=0.01)


def test_verbose_json_has_segments_and_invents_nothing(client: openai.OpenAI) -> None:
    """Times are those of the cuts; what the model does not tell is null."""
    answer = client.audio.transcriptions.create(
        model=MODEL,
        file=FILE,
        response_format="verbose_json",
        timestamp_granularities=["segment"],
        language="en",
        prompt="Phi",
        temperature=0.2,
    )

    assert (answer.text, answer.language, answer.words) == ("one two one two", "en", None)
    assert answer.duration == pytest.approx(32.723, abs=0.01)
    assert answer.segments is not None
    assert [(s.text, s.start, s.end) for s in answer.segments] == SEGMENTS
    assert [s.id for s in answer.segments] == [0, 1, 2, 3]
    assert {(s.avg_logprob, s.no_speech_prob) for s in answer.segments} == {(None, None)}


@pytest.mark.parametrize(
    ("wanted", "begins", "kind"),
    [
        ("text", "one two one two\n", "text/plain"),
        ("srt", "1\n00:00:00,576 --> 00:00:09,088\none\n\n2\n", "application/x-subrip"),
        ("vtt", "WEBVTT\n\n00:00:00.576 --> 00:00:09.088\none\n", "text/vtt"),
    ],
)
def test_text_and_subtitles_are_texts(client: openai.OpenAI, wanted: Any, begins: str, kind: str) -> None:
    """No JSON around them."""
    raw = client.audio.transcriptions.with_raw_response.create(model=MODEL, file=FILE, response_format=wanted)

    assert raw.text.startswith(begins)
    assert raw.headers["Content-Type"].startswith(kind)


def test_a_translation_goes_into_english(service: Service) -> None:
    """The job is one of type asr, to be translated."""
    fields = {"model": MODEL, "response_format": "verbose_json", "prompt": "a translation"}

    response = service.http.post("/v1/audio/translations", data=fields, files={"file": FILE})

    assert (response.json()["task"], response.json()["text"]) == ("translate", "one two one two")
    jobs = service.http.get("/v1/jobs", params={"type": "asr", "limit": 100}).json()["data"]
    (params,) = [job["params"] for job in jobs if job["params"].get("prompt") == "a translation"]
    assert (params["task"], params["target_language"]) == ("translate", "en")


def test_a_client_that_leaves_cancels_its_job(service: Service) -> None:
    """Nobody would read the text."""
    with pytest.raises(httpx.ReadTimeout):
        service.http.post(
            "/v1/audio/transcriptions",
            data={"model": MODEL, "prompt": "sleep 60, and nobody waits"},
            files={"file": FILE},
            timeout=2,
        )

    jobs = service.http.get("/v1/jobs", params={"type": "asr", "limit": 100}).json()["data"]
    (job,) = [job for job in jobs if job["params"].get("prompt") == "sleep 60, and nobody waits"]
    assert service.ended(job["id"])["status"] == "cancelled"


def test_an_async_client_is_answered(service: Service) -> None:
    """The same with asyncio."""

    async def hear() -> str:
        async with openai.AsyncOpenAI(base_url=f"{address(service)}/v1", api_key="unused", max_retries=0) as client:
            return (await client.audio.transcriptions.create(model=MODEL, file=FILE)).text

    assert asyncio.run(hear()) == "one two one two"


def test_what_clients_send_without_effect_is_accepted(client: openai.OpenAI) -> None:
    """Fields that ask for nothing, or for what is not this service's business."""
    harmless = {"user": "u", "store": "false", "diarize": "false"}

    heard = client.audio.transcriptions.create(
        model=MODEL, file=FILE, stream=False, chunking_strategy="auto", extra_body=harmless
    )

    assert heard.text == "one two one two"


def test_silence_is_an_empty_text(client: openai.OpenAI) -> None:
    """No words are made up."""
    assert client.audio.transcriptions.create(model=MODEL, file=("a.wav", silence(2))).text == ""


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities", "invalid_value"),
        ({"timestamp_granularities[]": "letter"}, "timestamp_granularities[0]", "invalid_value"),
        ({"response_format": "diarized_json"}, "response_format", "invalid_value"),
        ({"language": "english"}, "language", "invalid_value"),
        ({"temperature": "1.5"}, "temperature", "decimal_above_max_value"),
        ({"temperature": "-1"}, "temperature", "decimal_below_min_value"),
        ({"temperature": "warm"}, "temperature", "invalid_type"),
        ({"prompt": "x" * 20_001}, "prompt", "string_above_max_length"),
        ({"stream": "true"}, "stream", "unsupported_parameter"),
        ({"include[]": "logprobs"}, "include", "unsupported_parameter"),
        ({"chunking_strategy": '{"type":"server_vad"}'}, "chunking_strategy", "unsupported_parameter"),
        ({"known_speaker_names[]": "Ann"}, "known_speaker_names", "unsupported_parameter"),
        ({"diarize": "true"}, "diarize", "unsupported_parameter"),
        ({"beam_size": "5"}, "beam_size", "unknown_parameter"),
        ({"model": ""}, "model", "missing_required_parameter"),
        ({"model": ["a", "b"]}, "model", "invalid_value"),
    ],
)
def test_wrong_fields_are_refused_by_name(service: Service, fields: dict[str, Any], param: str, code: str) -> None:
    """In OpenAI's shape, with its codes."""
    response = service.http.post("/v1/audio/transcriptions", data={"model": MODEL, **fields}, files={"file": FILE})

    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"], error["code"]) == (
        400,
        "invalid_request_error",
        param,
        code,
    )


def test_word_times_are_refused_with_the_reason(service: Service) -> None:
    """The model has none."""
    fields = {"model": MODEL, "timestamp_granularities[]": ["segment", "word"], "response_format": "verbose_json"}

    response = service.http.post("/v1/audio/transcriptions", data=fields, files={"file": FILE})

    assert "tells no times of words" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("request_of", "param", "code"),
    [
        ({"data": {"model": MODEL}, "files": {"audio": FILE}}, "audio", "unknown_parameter"),
        ({"data": {"model": MODEL, "file": "a.mp3"}, "files": {}}, None, "unsupported_media_type"),
        ({"data": {"model": MODEL}, "files": [("file", FILE), ("file", FILE)]}, "file", "invalid_value"),
        ({"data": {"model": MODEL}, "files": {"file": ("a.mp3", b"")}}, None, "empty_input"),
        ({"data": {"model": MODEL}, "files": {"file": ("a.mp3", b"no sound")}}, None, "unsupported_media_type"),
        ({"data": {"model": MODEL}, "files": {"file": ("a.mp3", png())}}, None, "unsupported_media_type"),
        ({"data": {"model": MODEL}, "files": {"file": ("a.mp3", TALK[:900])}}, None, "unreadable_audio"),
        ({"json": {"model": MODEL}}, None, "unsupported_media_type"),
    ],
    ids=["other name", "no file", "two", "empty", "text", "a picture", "cut", "JSON"],
)
def test_what_is_no_recording_is_refused(service: Service, request_of: Any, param: str | None, code: str) -> None:
    """400 with a code to program against."""
    response = service.http.post("/v1/audio/transcriptions", **request_of)

    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, param, code), error
