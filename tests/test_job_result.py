"""GET /v1/jobs/{id}/result: each type in each of its formats, and why there is none."""

from __future__ import annotations

import io
import json
import wave
from typing import Any

import pytest

from phi4.store import Store
from phi4.store.keys import key
from tests.conftest import ROOT, Service, eventually
from tests.scripted_jobs import accepted, asked, document, prompted, running

TEXT, MARKDOWN = "text/plain; charset=utf-8", "text/markdown; charset=utf-8"
SRT, VTT = "application/x-subrip; charset=utf-8", "text/vtt; charset=utf-8"


def quiet(seconds: float) -> bytes:
    """A recording of silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(bytes(int(seconds * 32_000)))
    return file.getvalue()


@pytest.fixture(scope="module")
def ended(service: Service) -> dict[str, dict[str, Any]]:
    """A completed job of each kind."""
    talk = (ROOT / "examples/inputs/talk.mp3").read_bytes()
    ids = {
        "ocr": prompted(service, "read", pages=2),
        "vqa": asked(service, "How many?"),
        "asr": accepted(service.submit("asr", talk))["id"],
        "asr without times": accepted(service.submit("asr", talk, params='{"timestamps": "none"}'))["id"],
        "silence": accepted(service.submit("asr", quiet(1)))["id"],
    }
    jobs = {name: service.ended(job_id) for name, job_id in ids.items()}
    assert {job["status"] for job in jobs.values()} == {"completed"}, jobs
    return jobs


def result(service: Service, job: dict[str, Any], wanted: str) -> tuple[str, str]:
    """The text of a result and its content type."""
    response = service.http.get(job["links"]["result"], params={"format": wanted} if wanted else {})
    assert response.status_code == 200, response.text
    return response.text, response.headers["Content-Type"]


@pytest.mark.parametrize(
    ("kind", "wanted", "text", "content_type"),
    [
        ("ocr", "text", "page 64x48\n\npage 65x48\n", TEXT),
        ("ocr", "markdown", "page 64x48\n\npage 65x48\n", MARKDOWN),
        ("vqa", "text", "1 images: How many?\n", TEXT),
        ("asr", "text", "one two one two\n", TEXT),
        ("asr without times", "text", "one two one two\n", TEXT),
        ("silence", "text", "", TEXT),
        ("silence", "srt", "", SRT),
        ("silence", "vtt", "WEBVTT\n", VTT),
    ],
)
def test_a_result_as_text(
    service: Service, ended: dict[str, Any], kind: str, wanted: str, text: str, content_type: str
) -> None:
    """What was read, answered or said, and nothing else."""
    assert result(service, ended[kind], wanted) == (text, content_type)


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [(kind, wanted) for kind in ("ocr", "vqa", "asr", "silence") for wanted in ("", "json")]
    + [("asr", "verbose_json"), ("silence", "verbose_json")],
)
def test_a_result_as_json(service: Service, ended: dict[str, Any], kind: str, wanted: str) -> None:
    """JSON is the default, and the same as the job's own `result`."""
    text, content_type = result(service, ended[kind], wanted)

    assert (json.loads(text), content_type) == (ended[kind]["result"], "application/json")


def test_subtitles_have_the_times_of_the_speech(service: Service, ended: dict[str, Any]) -> None:
    """Each segment is a cue; times count from the start of the recording."""
    srt, srt_type = result(service, ended["asr"], "srt")
    vtt, vtt_type = result(service, ended["asr"], "vtt")

    assert (srt_type, vtt_type) == (SRT, VTT)
    assert vtt.startswith("WEBVTT\n\n")
    cues = [block.splitlines() for block in srt.strip().split("\n\n")]
    assert [(number, text) for number, _, text in cues] == [("1", "one"), ("2", "two"), ("3", "one"), ("4", "two")]
    assert [times.replace(",", ".") for _, times, _ in cues] == [line for line in vtt.splitlines() if "-->" in line]
    assert cues[0][1].startswith(f"00:00:{ended['asr']['result']['segments'][0]['start']:06.3f}".replace(".", ","))


def test_ocr_has_the_shape_that_mistral_gave_it(ended: dict[str, Any]) -> None:
    """Pages count from 0 by `index` and from 1 by `page`; `text` joins them."""
    first, _ = ended["ocr"]["result"]["pages"]

    assert first == {
        "index": 0,
        "input": 0,
        "page": 1,
        "dimensions": {"width": 64, "height": 48, "dpi": None},
        "markdown": "page 64x48",
        "text": "page 64x48",
        "finish_reason": "stop",
    }
    assert ended["ocr"]["result"]["text"] == "page 64x48\n\npage 65x48"


def test_vqa_has_an_answer(ended: dict[str, Any]) -> None:
    """Without a schema there is no `data`."""
    assert ended["vqa"]["result"] == {"answer": "1 images: How many?", "finish_reason": "stop"}


def test_asr_has_the_shape_that_openai_gave_it(ended: dict[str, Any]) -> None:
    """Segments lie within the recording, in order, each with its text."""
    job = ended["asr"]
    said = job["result"]

    assert {name: said[name] for name in ("task", "text", "language")} == {
        "task": "transcribe",
        "text": "one two one two",
        "language": "en",
    }
    assert said["duration"] == job["input"][0]["seconds"] == pytest.approx(32.7, abs=0.1)
    assert [(s["id"], s["text"]) for s in said["segments"]] == [(0, "one"), (1, "two"), (2, "one"), (3, "two")]
    times = [time for s in said["segments"] for time in (s["start"], s["end"])]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] <= said["duration"]
    assert job["usage"]["seconds"] == pytest.approx(sum(s["end"] - s["start"] for s in said["segments"]), abs=0.01)


def test_silence_is_a_result(ended: dict[str, Any]) -> None:
    """A recording in which nobody speaks completes with nothing said; no engine was asked."""
    job = ended["silence"]

    assert (job["result"]["text"], job["result"]["segments"], job["result"]["duration"]) == ("", [], 1.0)
    assert job["progress"] == {"completed": 0, "total": 0, "unit": "clip"}


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        *[("ocr", wanted) for wanted in ("srt", "vtt", "verbose_json")],
        *[("vqa", wanted) for wanted in ("markdown", "srt", "vtt", "verbose_json")],
        ("asr", "markdown"),
        *[("asr without times", wanted) for wanted in ("srt", "vtt")],
    ],
)
def test_a_format_that_the_result_cannot_have(service: Service, ended: dict[str, Any], kind: str, wanted: str) -> None:
    """422 says which formats there are, or why there are no subtitles."""
    response = service.http.get(ended[kind]["links"]["result"], params={"format": wanted})

    assert (response.status_code, response.json()["code"]) == (422, "format_unavailable")


def test_a_job_that_runs_has_no_result_yet(service: Service) -> None:
    """409 with the job's status, and when to ask again."""
    job_id = running(service, prompted(service, "sleep 60"))

    response = service.http.get(f"/v1/jobs/{job_id}/result")

    service.http.delete(f"/v1/jobs/{job_id}")
    problem = response.json()
    assert (response.status_code, problem["code"], problem["job_status"]) == (409, "not_finished", "in_progress")
    assert int(response.headers["Retry-After"]) > 0


def test_a_failed_job_has_no_result(service: Service) -> None:
    """409 with the job's error: asking again will not help."""
    job = service.ended(prompted(service, "cannot"))

    response = service.http.get(job["links"]["result"])

    problem = response.json()
    assert (response.status_code, problem["code"], problem["job_status"]) == (409, "no_result", "failed")
    assert problem["error"] == job["error"]
    assert "Retry-After" not in response.headers


def test_a_job_of_bad_pages_only_has_no_result(service: Service) -> None:
    """When no page could be read, the job failed."""
    job = service.ended(accepted(service.submit(file=document(2, 2)))["id"])

    assert service.http.get(job["links"]["result"]).json()["error"]["code"] == "image_too_small"


def test_a_cancelled_job_has_no_result(service: Service) -> None:
    """409 says that it was cancelled."""
    job_id = running(service, prompted(service, "sleep 60"))
    service.http.post(f"/v1/jobs/{job_id}/cancel")
    service.ended(job_id)

    response = service.http.get(f"/v1/jobs/{job_id}/result")

    assert (response.status_code, response.json()["job_status"]) == (409, "cancelled")


def test_an_unknown_job_is_not_found(service: Service) -> None:
    """404, whatever the format."""
    assert service.http.get("/v1/jobs/job_01m83vfqy1b4m423kpgcvgtnep/result?format=text").status_code == 404


def test_an_expired_job_is_gone(service: Service) -> None:
    """410 for the job and its result, and nothing of either is left on the disk."""
    job_id = service.ended(prompted(service, "read"))["id"]
    store = Store.at(service.redis_url)
    store.client.zadd(key("expiries"), {job_id: 1})
    store.client.close()

    eventually(lambda: service.http.get(f"/v1/jobs/{job_id}").status_code == 410, what="the job's expiry")

    for method, address in (("GET", "/result"), ("POST", "/cancel")):
        response = service.http.request(method, f"/v1/jobs/{job_id}{address}")
        assert (response.status_code, response.json()["code"]) == (410, "expired")
    eventually(lambda: not list(service.data_dir.glob(f"blobs/*/{job_id}")), what="the files' end")
