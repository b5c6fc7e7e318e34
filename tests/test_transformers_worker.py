"""A worker around the transformers engine, as processes: whole jobs, streams, cancelling and deadlines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from httpx_sse import EventSource

from phi4.store import Store
from tests.conftest import ROOT, Service, eventually, make_service, pdf, png
from tests.vllm_on_cpu import exactly

pytest.importorskip("transformers", reason="transformers is not installed here; `make test` runs this in .venv-vllm")
pytest.importorskip("peft", reason="peft is not installed here; `make test` runs this file in .venv-vllm")

#: What vLLM left behind, whose tests run in the same process, is its own.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]
TALK = ROOT / "examples" / "inputs" / "talk.mp3"
#: An answer that takes longer than any test waits.
ENDLESS = {"question": "?", "response_schema": exactly(5_000), "max_tokens": 6_000}


@pytest.fixture(scope="module")
def transformers_service(
    valkey: str, tiny_native_phi4: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """API, side worker and a worker of the transformers engine."""
    url = valkey.removesuffix("/0") + "/9"
    Store.at(url).client.flushdb()
    settings = {"PHI4_MODEL_ID": str(tiny_native_phi4), "PHI4_MAX_MODEL_LEN": "8192", "PHI4_CPU_THREADS": "1"}
    service = make_service(url, tmp_path_factory.mktemp("transformers"), **settings)
    try:
        service.start("api", "api")
        service.start("side", "worker", "side", PHI4_METRICS_PORT="0")
        service.start("infer", "worker", "infer", PHI4_METRICS_PORT="0", PHI4_ENGINE="transformers")
        eventually(service.is_ready, seconds=240, what="readiness")
        yield service
    finally:
        codes = service.stop_all()
        service.http.close()
    assert codes == {"api": 0, "side": 0, "infer": 0}


def started_job(service: Service, **fields: str) -> str:
    """An endless job, in work by now."""
    response = service.submit("vqa", png(56, 56), params=json.dumps(ENDLESS), **fields)
    assert response.status_code == 202, response.text
    job_id = str(response.json()["id"])
    eventually(lambda: service.job(job_id)["status"] != "queued", what="the start of the part")
    return job_id


def test_every_type_of_job_completes(transformers_service: Service) -> None:
    """Pages, a question with a schema, and a recording, each with the engine's name and its tokens."""
    schema = {"type": "object", "properties": {"total": {"type": "integer"}}, "required": ["total"]}
    posted = [
        transformers_service.submit("ocr", pdf(2), params=json.dumps({"max_tokens": 12})),
        transformers_service.submit("vqa", png(), params=json.dumps({"question": "Total?", "response_schema": schema})),
        transformers_service.submit("asr", TALK.read_bytes(), params=json.dumps({"max_tokens": 12})),
    ]

    ocr, vqa, asr = (transformers_service.ended(p.json()["id"], seconds=90) for p in posted)

    ended = [(j["status"], j["engine"], j["model"]) for j in (ocr, vqa, asr)]
    assert ended == [("completed", "transformers", "phi-4-multimodal")] * 3, (ocr, vqa, asr)
    assert [p["page"] for p in ocr["result"]["pages"]] == [1, 2]
    assert isinstance(vqa["result"]["data"]["total"], int)
    assert asr["result"]["segments"][-1]["end"] <= asr["result"]["duration"]
    assert all(j["usage"]["completion_tokens"] > 0 for j in (ocr, vqa, asr))


def test_text_reaches_a_reader_while_it_is_written(transformers_service: Service) -> None:
    """The job's events carry the model's words piece by piece, and they make up the answer."""
    params = {"question": "?", "response_schema": exactly(100)}
    job_id = transformers_service.submit("vqa", png(56, 56), params=json.dumps(params)).json()["id"]

    with transformers_service.http.stream("GET", f"/v1/jobs/{job_id}/events", timeout=90) as response:
        events = list(EventSource(response).iter_sse())

    pieces = [json.loads(event.data)["text"] for event in events if event.event == "delta"]
    assert len(pieces) > 1
    assert "".join(pieces).strip() == transformers_service.job(job_id)["result"]["answer"]


def test_a_cancelled_job_makes_room_for_the_next(transformers_service: Service) -> None:
    """Its generation ends, though it had thousands of tokens to go."""
    job_id = started_job(transformers_service)

    transformers_service.http.post(f"/v1/jobs/{job_id}/cancel")

    assert transformers_service.ended(job_id)["status"] == "cancelled"
    params = json.dumps({"max_tokens": 4})
    assert transformers_service.ended(transformers_service.submit(params=params).json()["id"])["status"] == "completed"


def test_a_deadline_ends_the_generation(transformers_service: Service) -> None:
    """Past `cancel_after` the job is cancelled with that reason, and the next one is worked on."""
    job = transformers_service.ended(started_job(transformers_service, cancel_after="2"))

    assert (job["status"], job["error"]["code"]) == ("cancelled", "deadline_exceeded")
    params = json.dumps({"max_tokens": 4})
    assert transformers_service.ended(transformers_service.submit(params=params).json()["id"])["status"] == "completed"
