"""Existing clients on the cpu engine: questions about pictures, recordings and documents; plain chat is refused."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import openai
import pytest
from PIL import Image, ImageDraw, ImageFont

from tests.conftest import Service
from tests.peers import (
    INVOICE,
    MODEL,
    chat,
    data_url,
    mistral_client,
    openai_client,
    picture,
    sound,
    text,
    user,
)


def poster() -> bytes:
    """A small picture with two words."""
    image = Image.new("RGB", (360, 90), "white")
    ImageDraw.Draw(image).text((30, 20), "OPEN DAILY", "black", ImageFont.load_default(40))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def client(cpu_service: Service) -> Iterator[openai.OpenAI]:
    """OpenAI's client."""
    with openai_client(cpu_service) as client:
        yield client


def test_the_last_question_is_answered_from_the_picture_shown_before(client: openai.OpenAI) -> None:
    """The words of the user's last turn, over the pictures shown last."""
    messages = [
        user(picture(data_url(INVOICE, "image/jpeg")), text("What is the invoice number?")),
        {"role": "assistant", "content": "HL-2026-0417"},
        user("What is the total?"),
    ]

    answer = client.chat.completions.create(**chat(*messages))

    assert answer.choices[0].message.content == "900.00"


def test_a_schema_is_filled_from_the_picture(client: openai.OpenAI) -> None:
    """The JSON comes as a stream as well."""
    schema = {"type": "object", "properties": {"invoice_number": {"type": "string"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "bill", "schema": schema}}
    messages = [user(picture(data_url(INVOICE, "image/jpeg")), text("Fill it in."))]

    chunks = client.chat.completions.create(**chat(*messages, response_format=wanted, stream=True))

    told = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert json.loads(told) == {"invoice_number": "HL-2026-0417"}


def test_a_picture_without_words_is_read(cpu_service: Service, client: openai.OpenAI) -> None:
    """All that is printed on it, up to where a stop cuts it; Mistral's client reads it too."""
    shown = user(picture(data_url(poster())))

    answers = [client.chat.completions.create(**chat(shown, stop=stop)) for stop in (None, "DAILY")]
    with mistral_client(cpu_service) as mistral:
        (page,) = mistral.ocr.process(
            model=MODEL, document={"type": "image_url", "image_url": data_url(poster())}
        ).pages

    assert [answer.choices[0].message.content for answer in answers] == ["OPEN DAILY", "OPEN "]
    assert "OPEN DAILY" in page.markdown


def test_a_chat_that_is_one_recording_is_a_transcription(client: openai.OpenAI) -> None:
    """What is said, clip by clip."""
    answer = client.chat.completions.create(**chat(user(sound())))

    assert len((answer.choices[0].message.content or "").split()) > 40


@pytest.mark.parametrize(
    "messages",
    [
        [user("Tell me a joke.")],
        [user(sound(), text("Who speaks?"))],
        [{"role": "system", "content": "Answer in French."}, user(sound())],
        [user(sound(), picture())],
    ],
    ids=["plain chat", "sound and words", "sound and a system's words", "sound and a picture"],
)
def test_what_it_cannot_do_is_refused_clearly(client: openai.OpenAI, messages: list[object]) -> None:
    """400, so that no client tries again, with a sentence that says what it can do."""
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**chat(*messages))

    assert refused.value.code == "engine_cannot_answer"
    assert "The cpu engine" in refused.value.message
