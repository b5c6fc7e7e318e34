"""A worker around the vLLM engine, as processes: whole jobs, and what happens when one of its processes ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import Any

import httpx
import psutil
import pytest
from httpx_sse import EventSource
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import ROOT, Service, eventually, pdf, png
from tests.vllm_figures import VLLM_FIGURES
from tests.vllm_on_cpu import LASTING, exactly
from tests.vllm_running import start_worker

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test` runs this file in .venv-vllm")

#: vLLM takes a quarter of a minute to start here, longer beside other work.
pytestmark = pytest.mark.timeout(600)
TALK = ROOT / "examples" / "inputs" / "talk.mp3"


def engine_processes(worker: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """EngineCore and its own children."""
    return [p for p in psutil.Process(worker.pid).children(recursive=True) if "resource_tracker" not in _command(p)]


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def gone(process: psutil.Process) -> bool:
    """Whether a process has ended; one that nobody has waited for counts."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def lasting_job(service: Service) -> str:
    """A job whose one part keeps the engine busy for some seconds, in work by now."""
    params = {"question": "?", "response_schema": exactly(LASTING), "max_tokens": 2 * LASTING}
    response = service.submit("vqa", png(56, 56), params=json.dumps(params))
    assert response.status_code == 202, response.text
    job_id = str(response.json()["id"])
    eventually(lambda: service.job(job_id)["status"] == "in_progress", what="the start of the part")
    return job_id


def test_every_type_of_job_completes(vllm_service: Service) -> None:
    """Pages, a question with a schema, and a recording, each with the engine's name and its tokens."""
    schema = {"type": "object", "properties": {"total": {"type": "integer"}}, "required": ["total"]}
    posted = [
        vllm_service.submit("ocr", pdf(3), params=json.dumps({"max_tokens": 12})),
        vllm_service.submit("vqa", png(), params=json.dumps({"question": "Total?", "response_schema": schema})),
        vllm_service.submit("asr", TALK.read_bytes(), params=json.dumps({"max_tokens": 12})),
    ]

    ocr, vqa, asr = (vllm_service.ended(p.json()["id"], seconds=60) for p in posted)

    ended = [(j["status"], j["engine"], j["model"]) for j in (ocr, vqa, asr)]
    assert ended == [("completed", "vllm", "phi-4-multimodal")] * 3, (ocr, vqa, asr)
    assert [p["page"] for p in ocr["result"]["pages"]] == [1, 2, 3]
    assert isinstance(vqa["result"]["data"]["total"], int)
    assert asr["result"]["segments"][-1]["end"] <= asr["result"]["duration"]
    assert all(j["usage"]["completion_tokens"] > 0 for j in (ocr, vqa, asr))


def test_vllms_own_figures_are_served_beside_the_workers(vllm_service: Service) -> None:
    """Those that the dashboard shows, and they count what a job made."""
    wrote = "vllm:generation_tokens_total"
    before = figures(vllm_service)
    job = vllm_service.submit("ocr", png(), params=json.dumps({"max_tokens": 12})).json()
    used = vllm_service.ended(job["id"], seconds=60)["usage"]["completion_tokens"]
    counted = eventually(lambda: (n := figures(vllm_service)[wrote] - before[wrote]) > 0 and n, what="vLLM's count")

    assert set(before) >= VLLM_FIGURES
    assert counted >= used
    assert figures(vllm_service)["phi4_parts_total"] > before.get("phi4_parts_total", 0)


def figures(service: Service) -> dict[str, float]:
    """What the worker serves, summed over labels."""
    text = httpx.get(f"http://127.0.0.1:{service.env['WORKER_METRICS_PORT']}/metrics").raise_for_status().text
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


def test_a_question_longer_than_the_context_fails_the_job(vllm_service: Service) -> None:
    """Both numbers are named, and nothing is tried again."""
    params = {"question": "why " * 2_500}

    job = vllm_service.ended(vllm_service.submit("vqa", png(), params=json.dumps(params)).json()["id"])

    assert (job["status"], job["error"]["code"]) == ("failed", "prompt_too_long")
    assert "8192" in job["error"]["message"]


def test_a_cancelled_job_leaves_the_engine(vllm_service: Service) -> None:
    """The job says so once its part has stopped, and the worker has nothing in flight."""
    job_id = lasting_job(vllm_service)

    vllm_service.http.post(f"/v1/jobs/{job_id}/cancel")

    assert vllm_service.ended(job_id)["status"] == "cancelled"
    eventually(lambda: _in_flight(vllm_service) == 0, what="an empty engine")


def test_a_deadline_ends_the_engines_request_too(vllm_service: Service) -> None:
    """Past `cancel_after` the job is cancelled with that reason, and its part is out of the engine."""
    params = {"question": "?", "response_schema": exactly(4 * LASTING), "max_tokens": 8 * LASTING}
    posted = vllm_service.submit("vqa", png(56, 56), params=json.dumps(params), cancel_after="2")

    job = vllm_service.ended(posted.json()["id"])

    assert (job["status"], job["error"]["code"]) == ("cancelled", "deadline_exceeded")
    eventually(lambda: _in_flight(vllm_service) == 0, what="an empty engine")


def test_text_reaches_a_reader_while_it_is_written(vllm_service: Service) -> None:
    """The job's events carry the model's words piece by piece, and they make up the answer."""
    job_id = lasting_job(vllm_service)

    with vllm_service.http.stream("GET", f"/v1/jobs/{job_id}/events", timeout=60) as response:
        events = list(EventSource(response).iter_sse())

    pieces = [json.loads(event.data)["text"] for event in events if event.event == "delta"]
    assert len(pieces) > 3
    assert "".join(pieces).strip() == vllm_service.job(job_id)["result"]["answer"]


def _in_flight(service: Service) -> int:
    return sum(int(w["in_flight"]) for w in service.http.get("/health").json()["workers"])


def test_sigterm_to_the_whole_group_drains(vllm_service: Service) -> None:
    """As from a supervisor or Ctrl-C: what runs ends well, the worker leaves with 0, and EngineCore with it."""
    worker = vllm_service.processes["infer"]
    engine = engine_processes(worker)
    job_id = lasting_job(vllm_service)

    os.killpg(worker.pid, signal.SIGTERM)

    assert worker.wait(120) == 0, vllm_service.output("infer")[-3_000:]
    assert vllm_service.job(job_id)["status"] == "completed"
    assert engine
    assert all(gone(p) for p in engine)


def test_a_dead_engine_ends_its_worker_and_no_job(vllm_service: Service) -> None:
    """EngineCore is killed: the worker leaves with 70 for its supervisor, and the next one does the job."""
    worker = start_worker(vllm_service)
    job_id = lasting_job(vllm_service)

    engine_processes(worker)[0].kill()

    assert worker.wait(60) == 70
    start_worker(vllm_service)
    assert vllm_service.ended(job_id, seconds=60)["status"] == "completed"


def test_an_idle_engines_death_is_noticed(vllm_service: Service) -> None:
    """Without a part in flight too: a worker without an engine must not wait for the next job to find out."""
    worker = vllm_service.processes["infer"]
    eventually(lambda: _in_flight(vllm_service) == 0)

    engine_processes(worker)[0].kill()

    assert worker.wait(60) == 70


def test_a_killed_worker_takes_its_engine_along(vllm_service: Service) -> None:
    """Else an orphan would hold the card's memory, and no new worker could start; the job is done by the next one."""
    worker = start_worker(vllm_service)
    engine = engine_processes(worker)
    job_id = lasting_job(vllm_service)

    worker.kill()

    assert worker.wait(10) == -signal.SIGKILL
    assert engine
    eventually(lambda: all(gone(p) for p in engine), what="the end of EngineCore")
    start_worker(vllm_service)
    assert vllm_service.ended(job_id, seconds=60)["status"] == "completed"


def test_a_starting_worker_tells_its_stage(vllm_service: Service) -> None:
    """The log of the last start holds the stages in order; `/health` shows the one it is in."""
    said: list[Any] = [json.loads(line) for line in vllm_service.output("infer").splitlines() if '"stage"' in line]
    stages_of: dict[str, list[str]] = {}
    for line in said:
        if line.get("event") == "stage":
            stages_of.setdefault(line["worker"], []).append(line["stage"])

    assert list(stages_of.values())[-1] == ["loading", "compiling", "probing", "ready"]
