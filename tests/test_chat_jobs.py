"""Jobs of type `chat`: turns with text, pictures and sound, over the jobs API."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from pydantic import ValidationError

from phi4.job import Input, NewJob
from phi4.params import MOST_CHAT_CHARACTERS, ChatParams, modality
from tests.conftest import Service, pdf, png
from tests.peers import TALK, silence
from tests.refusals import check, wrong_field
from tests.scripted_jobs import accepted

TEXT = {"type": "text", "text": "hello"}
IMAGE = {"type": "image", "input": 0}
AUDIO = {"type": "audio", "input": 0}


def of(*content: Any, role: str = "user") -> dict[str, Any]:
    """One message."""
    return {"role": role, "content": list(content)}


def submitted(service: Service, messages: list[Any], *files: bytes, **params: Any) -> Any:
    """Send a conversation; gives the job."""
    body = {"type": "chat", "params": {"messages": messages, **params}}
    body["input"] = [{"data": base64.b64encode(file).decode()} for file in files]
    return accepted(service.http.post("/v1/jobs", json=body))


@pytest.mark.parametrize(
    ("content", "queue"),
    [
        ([TEXT], "text"),
        ([AUDIO], "speech"),
        ([TEXT, AUDIO], "speech"),
        ([IMAGE, TEXT], "vision"),
        ([IMAGE, AUDIO | {"input": 1}], "vision"),
    ],
)
def test_what_a_conversation_holds_chooses_its_queue(content: list[Any], queue: str) -> None:
    """Pictures need the adapter of vision, sound alone that of speech, and words none."""
    params = ChatParams.model_validate({"messages": [of(*content)]}).model_dump(exclude_none=True)

    assert modality("chat", params) == queue
    job = NewJob(id="job_1", owner="local", type="chat", params=params, inputs=(Input(),), priority="high")
    assert job.queue == f"infer.{queue}.high"


def test_turns_reach_the_engine_in_order(service: Service) -> None:
    """Words, pictures, all pages of a document, and sound stand where the messages have them."""
    messages = [
        {"role": "system", "content": "be brief"},
        of(TEXT, IMAGE, {"type": "text", "text": "and"}, {"type": "image", "input": 1}),
        {"role": "assistant", "content": "yes"},
        of({"type": "audio", "input": 2}, IMAGE, {"type": "text", "text": "?"}),
    ]

    job = service.ended(submitted(service, messages, png(60, 40), pdf(2), TALK)["id"])

    assert job["status"] == "completed", job.get("error")
    pages = "picture 417x625 picture 419x625"
    clips = "sound 17.02 s sound 13.54 s"
    assert job["result"] == {
        "answer": f"[system: be brief] [user: hello picture 60x40 and {pages}] [assistant: yes] "
        f"[user: {clips} picture 60x40 ?]",
        "finish_reason": "stop",
    }
    assert job["progress"] == {"completed": 1, "total": 1, "unit": "turn"}
    assert [one.get("pages") for one in job["input"]] == [1, 2, None]
    assert job["input"][2]["seconds"] == pytest.approx(32.723, abs=0.01)
    assert job["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "pages": 3,
        "seconds": pytest.approx(30.56, abs=0.1),
    }


def test_how_to_answer_reaches_the_engine(service: Service) -> None:
    """Sampling, length, stops, seed and detail are the engine's to obey."""
    how = {"max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "seed": 3, "stop": ["x", "y"], "detail": "low"}

    job = service.ended(submitted(service, [{"role": "user", "content": "how"}], **how)["id"])

    assert json.loads(job["result"]["answer"]) == [9, 0.5, 0.9, 3, ["x", "y"], "low"]
    assert job["result"]["finish_reason"] == "length"


def test_an_answer_to_a_schema_is_also_given_parsed(service: Service) -> None:
    """`data` is the JSON of the answer."""
    schema = {"type": "object", "properties": {"total": {"type": "number"}}}

    job = service.ended(submitted(service, [{"role": "user", "content": "?"}], response_schema=schema)["id"])

    assert job["result"]["data"] == {"schema": schema}
    text = service.http.get(f"/v1/jobs/{job['id']}/result", params={"format": "text"}).text
    assert json.loads(text) == {"schema": schema}


def test_a_short_recording_is_heard_whole(service: Service) -> None:
    """Up to 30 s nothing is cut away, so that silence and noise can be asked about too."""
    job = submitted(service, [of(AUDIO)], silence(2))

    assert service.ended(job["id"])["result"]["answer"] == "[user: sound 2.00 s]"


@pytest.mark.parametrize("files", [[silence(1)] * 5, [TALK] * 3], ids=["five short ones", "three of two clips"])
def test_more_sound_than_a_model_hears_at_once_is_refused(service: Service, files: list[bytes]) -> None:
    """Four clips of 30 s together; before more of them is kept."""
    job = submitted(service, [of(*({"type": "audio", "input": n} for n in range(len(files))))], *files)

    assert service.ended(job["id"])["error"]["code"] == "too_many_images"


def test_a_document_of_more_pages_than_a_model_sees_at_once_is_refused(service: Service) -> None:
    """64 of them, together with the other pictures; before one is drawn."""
    job = submitted(service, [of(IMAGE, {"type": "image", "input": 1})], png(), pdf(64))

    ended = service.ended(job["id"])
    assert (ended["error"]["code"], ended["error"]["message"].split(";")[0]) == (
        "too_many_images",
        "The question is asked over 65 images",
    )


def test_a_long_recording_in_which_nobody_speaks_is_refused(service: Service) -> None:
    """A conversation about a recording of which nothing is left would be about nothing."""
    job = submitted(service, [of(AUDIO)], silence(31))

    assert service.ended(job["id"])["error"]["code"] == "nothing_heard"


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([], "messages"),
        ([{"role": "tool", "content": "x"}], "messages.0.role"),
        ([of()], "messages.0.content"),
        ([of({"type": "text"})], "messages.0.content.0"),
        ([of({"type": "text", "text": "x", "input": 0})], "messages.0.content.0"),
        ([of({"type": "image", "text": "x"})], "messages.0.content.0"),
        ([of({"type": "image", "input": -1})], "messages.0.content.0.input"),
        ([of(IMAGE, role="assistant")], "messages.0"),
        ([{"role": "user", "content": "x" * (MOST_CHAT_CHARACTERS + 1)}], "messages"),
    ],
)
def test_messages_out_of_bounds_are_refused_by_name(messages: list[Any], field: str) -> None:
    """Each part holds exactly what its type says, and only users send media."""
    with pytest.raises(ValidationError) as refused:
        ChatParams.model_validate({"messages": messages})

    assert [".".join(map(str, error["loc"])) for error in refused.value.errors()] == [field]


@pytest.mark.parametrize(
    ("content", "files", "field"),
    [
        ([IMAGE], 0, "params.messages"),
        ([IMAGE, {"type": "image", "input": 2}], 2, "params.messages"),
        ([TEXT], 1, "input"),
        ([IMAGE], 2, "input"),
        ([IMAGE, AUDIO], 1, "params.messages"),
    ],
)
def test_messages_and_inputs_must_agree(service: Service, content: list[Any], files: int, field: str) -> None:
    """Every input is used, as one kind, and every part has its input."""
    inputs = [{"data": base64.b64encode(png()).decode()}] * files
    body = {"type": "chat", "params": {"messages": [of(*content)]}, "input": inputs}

    check(service.http.post("/v1/jobs", json=body), wrong_field(field))


@pytest.mark.parametrize(("part", "file"), [(IMAGE, TALK), (AUDIO, png())], ids=["sound as a picture", "the reverse"])
def test_an_input_must_be_what_its_part_says(service: Service, part: dict[str, Any], file: bytes) -> None:
    """415, as for any file that does not belong to its job."""
    body = {"type": "chat", "params": {"messages": [of(part)]}, "input": {"data": base64.b64encode(file).decode()}}

    response = service.http.post("/v1/jobs", json=body)

    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")
