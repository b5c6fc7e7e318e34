"""A job that asks what an earlier one of its owner did is given that one's result, and says so."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from openai import OpenAI

from tests.conftest import Service, eventually, make_service, pdf, png
from tests.servers import web

OwnService = Callable[..., Service]


@pytest.fixture(scope="module")
def caching(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that gives results again; each test sends bytes of its own."""
    folder = tmp_path_factory.mktemp("caching")
    service = make_service(valkey.removesuffix("/0") + "/7", folder, PHI4_RESULT_CACHE="1")
    try:
        service.start_all("tests.engines:Scripted")
        yield service
    finally:
        service.stop_all()
        service.http.close()


def ask(service: Service, file: bytes | None = None, type: str = "ocr", **fields: str) -> dict[str, Any]:
    """Run one job to its end."""
    return service.ended(service.submit(type, file, **fields).raise_for_status().json()["id"])


def test_an_equal_job_gets_the_earlier_result(caching: Service) -> None:
    """Same bytes, type and params: the same result at once, with what it took, marked, under an id of its own."""
    document = pdf(3)
    first, second = ask(caching, document), ask(caching, document, metadata='{"other": "metadata"}', priority="high")

    assert "cached" not in first
    assert (second["cached"], second["cached_from"]) == (True, first["id"])
    assert second["id"] != first["id"]
    for same in ("result", "usage", "progress", "engine", "model"):
        assert second[same] == first[same]
    assert second["input"] == first["input"]
    assert second["input"][0]["pages"] == 3
    assert caching.http.get(f"/v1/jobs/{second['id']}/result?format=text").text.startswith("page 417x625")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"cache": "false"}),
        ({"cache": "false"}, {}),
        ({}, {"params": '{"detail": "low"}'}),
        ({}, {"file": "another"}),
        ({"type": "vqa", "params": '{"question": "a"}'}, {"type": "vqa", "params": '{"question": "b"}'}),
        ({"params": '{"temperature": 0.5}'}, {"params": '{"temperature": 0.5}'}),
        ({"params": '{"prompt": "fail"}'}, {"params": '{"prompt": "fail"}'}),
    ],
    ids=["asked afresh", "not to be kept", "other params", "other bytes", "other question", "chance", "failed"],
)
def test_what_is_asked_again(
    caching: Service, request: pytest.FixtureRequest, first: dict[str, str], second: dict[str, str]
) -> None:
    """Anything that may give another answer goes to the engine."""
    own = 40 + zlib.crc32(request.node.name.encode()) % 1_000  # bytes that no other test sends
    jobs = [
        ask(caching, png(own, own, "red" if fields.pop("file", "") else "blue"), **fields)
        for fields in (dict(first), dict(second))
    ]

    assert [job.get("cached") for job in jobs] == [None, None]
    assert all(job["timings"]["run_ms"] >= 0 for job in jobs)


def test_a_job_with_a_failed_page_is_not_given_again(caching: Service) -> None:
    """What is missing in it may be there the next time."""
    params = json.dumps({"prompt": "fail thrice"})
    first, second = (ask(caching, png(60, 60), params=params) for _ in range(2))

    assert first["status"] == "failed"
    assert "cached" not in second


def test_a_deleted_job_s_result_is_gone(caching: Service) -> None:
    """Nobody gets what its owner had erased."""
    first = ask(caching, png(201, 60))
    caching.http.delete(f"/v1/jobs/{first['id']}").raise_for_status()

    assert "cached" not in ask(caching, png(201, 60))


def test_a_result_given_again_is_the_job_s_own(caching: Service) -> None:
    """It stays when the job that it came from is deleted."""
    first, second = ask(caching, png(202, 60)), ask(caching, png(202, 60))
    caching.http.delete(f"/v1/jobs/{first['id']}").raise_for_status()

    assert caching.job(second["id"])["result"] == first["result"]


def test_the_input_of_a_job_that_keeps_none_is_erased(caching: Service) -> None:
    """As after any other end."""
    ask(caching, png(203, 60))
    job = ask(caching, png(203, 60), input_retention="until_done")

    assert job["cached"]
    folder = caching.data_dir / "blobs"
    eventually(lambda: not [p for p in folder.rglob("input-*") if job["id"] in p.parts], what="the input's end")


def test_webhooks_events_and_idempotency_are_as_ever(caching: Service) -> None:
    """A receiver, a reader of events and a client that repeats its request see a job like any other."""
    ask(caching)
    with web() as receiver:
        sent = [
            caching.http.post(
                "/v1/jobs",
                data={"type": "ocr", "webhook_url": receiver.url},
                files=[("file", ("input", png()))],
                headers={"Idempotency-Key": "once", "Prefer": "wait=20"},
            )
            for _ in range(2)
        ]
        first, again = (response.raise_for_status().json() for response in sent)
        events = caching.http.get(f"/v1/jobs/{first['id']}/events").text
        eventually(lambda: receiver.seen, what="the webhook")

    assert first["cached"]
    assert (again["id"], sent[1].headers["Idempotent-Replayed"]) == (first["id"], "true")
    assert [line for line in events.splitlines() if line.startswith("event: ")] == [
        "event: status",
        "event: status",
        "event: result",
    ]
    assert json.loads(receiver.seen[0].body)["job"]["result"] == first["result"]


def test_a_conversation_is_given_again_streamed_or_not(caching: Service) -> None:
    """OpenAI's clients ask at chance by default: temperature 0 or a seed is what makes an answer repeatable."""
    client = OpenAI(base_url=f"{caching.http.base_url}/v1", api_key="none", max_retries=0)
    messages: Any = [{"role": "user", "content": "hello"}]

    whole = client.chat.completions.create(model="phi-4-multimodal", messages=messages, temperature=0)
    again = client.chat.completions.create(model="phi-4-multimodal", messages=messages, temperature=0, stream=True)
    pieces = [(chunk.id, chunk.choices[0].delta.content or "") for chunk in again]

    assert caching.job(pieces[0][0].replace("chatcmpl-", "job_"))["cached"]
    assert "".join(text for _, text in pieces) == whole.choices[0].message.content


def test_nothing_is_given_again_when_it_is_turned_off(own_service: OwnService) -> None:
    """PHI4_RESULT_CACHE=0."""
    service = own_service(PHI4_RESULT_CACHE="0")

    assert [ask(service).get("cached") for _ in range(2)] == [None, None]


def test_another_engine_s_answer_is_not_given(own_service: OwnService) -> None:
    """Only an engine that would be asked now speaks for itself."""
    service = own_service(PHI4_RESULT_CACHE="1")
    ask(service)
    scripted = service.processes.pop("infer")
    scripted.terminate()
    scripted.wait(30)
    service.start("other", "worker", "infer", PHI4_METRICS_PORT="0", PHI4_ENGINE="tests.engines:Other")

    job = ask(service)

    assert (job["engine"], job.get("cached")) == ("other", None)


def test_an_answer_in_eight_bits_is_not_given_in_sixteen(own_service: OwnService) -> None:
    """Nor the other way round: it is another model's."""
    service = own_service(PHI4_RESULT_CACHE="1")
    ask(service)
    side = service.processes.pop("side")
    side.terminate()
    side.wait(30)
    service.start("other", "worker", "side", PHI4_METRICS_PORT="0", PHI4_FP8="all")

    assert ask(service).get("cached") is None
