"""GET /v1/jobs/{id}: what a job looks like at each stage, and waiting for it to change."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.api_alone import api_alone
from tests.conftest import Service, eventually, pdf, png
from tests.scripted_jobs import accepted, document, parts, prompted, running


@pytest.fixture(scope="module")
def no_workers(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An API without workers: every job stays queued."""
    with api_alone(valkey, tmp_path_factory.mktemp("api")) as service:
        yield service


def test_a_completed_job_tells_all(service: Service) -> None:
    """State, times, progress, input, result, usage, timings, links; no field more and none less."""
    began = int(time.time())
    job_id = accepted(service.submit(file=pdf(2), metadata='{"a": "b"}'))["id"]

    job = service.ended(job_id)

    times = [job.pop(name) for name in ("created_at", "started_at", "completed_at")]
    assert times == sorted(times)
    assert began - 1 <= times[0] <= times[-1] <= time.time() + 1
    assert job.pop("expires_at") == times[0] + 86_400
    assert {name: type(value) for name, value in job.pop("timings").items()} == {
        "queued_ms": int,
        "prepare_ms": int,
        "run_ms": int,
    }
    (file,) = job.pop("input")
    assert (file["filename"], file["media_type"], file["pages"]) == ("input", "application/pdf", 2)
    pages = job.pop("result")["pages"]
    assert [(p["index"], p["input"], p["page"]) for p in pages] == [(0, 0, 1), (1, 0, 2)]
    assert [p["markdown"] for p in pages] == [
        f"page {p['dimensions']['width']}x{p['dimensions']['height']}" for p in pages
    ]
    assert job == {
        "id": job_id,
        "object": "job",
        "type": "ocr",
        "status": "completed",
        "progress": {"completed": 2, "total": 2, "unit": "page"},
        "attempts": 1,
        "model": "scripted-1",
        "engine": "scripted",
        "priority": "normal",
        "params": {"format": "markdown", "detail": "auto", "temperature": 0.0},
        "metadata": {"a": "b"},
        "usage": {"pages": 2, "prompt_tokens": 20, "completion_tokens": 6},
        "links": {
            "self": f"/v1/jobs/{job_id}",
            "cancel": f"/v1/jobs/{job_id}/cancel",
            "result": f"/v1/jobs/{job_id}/result",
            "events": f"/v1/jobs/{job_id}/events",
        },
    }


def test_a_failed_job_says_why(service: Service) -> None:
    """The error has a stable code, whose fault it was, a sentence, whether to try again, and where it happened."""
    job = service.ended(prompted(service, "cannot"))

    assert job["status"] == "failed"
    assert "result" not in job
    assert job["error"] == {
        "code": "engine_cannot_answer",
        "category": "engine",
        "message": "This engine cannot answer this on purpose.",
        "retryable": False,
        "phase": "run",
    }


def test_a_queued_job_tells_its_place(no_workers: Service) -> None:
    """`queue.position` counts what goes before it; without a worker for its type the job says so."""
    ids = [accepted(no_workers.submit())["id"] for _ in range(3)]

    jobs = [no_workers.job(job_id) for job_id in ids]

    assert [job["queue"] for job in jobs] == [{"position": n, "reason": "no_worker_for_type"} for n in range(3)]
    assert {job["status"] for job in jobs} == {"queued"}
    assert jobs[0]["progress"] == {"completed": 0, "total": None, "unit": "page"}
    assert [jobs[0][name] for name in ("started_at", "completed_at", "model", "engine")] == [None] * 4


def test_a_running_job_has_started(service: Service) -> None:
    """Its total is known, and no time of completion."""
    job = service.job(running(service, prompted(service, "sleep 60", pages=2)))

    service.http.delete(job["links"]["self"])
    assert job["progress"] == {"completed": 0, "total": 2, "unit": "page"}
    assert job["started_at"] >= job["created_at"]
    assert job["completed_at"] is None
    assert "queue" not in job or job["queue"].keys() == {"position"}


def test_wait_returns_at_the_first_change(service: Service) -> None:
    """A long-poll that would outlast the client's patience comes back when the status changes."""
    job_id = running(service, prompted(service, "sleep 60"))
    with ThreadPoolExecutor() as pool:
        poll = pool.submit(service.http.get, f"/v1/jobs/{job_id}", params={"wait": 60}, timeout=30)
        service.http.post(f"/v1/jobs/{job_id}/cancel")

        assert poll.result().json()["status"] in ("cancelling", "cancelled")


def test_wait_returns_the_job_when_nothing_changes(no_workers: Service) -> None:
    """After the time asked for, the job comes as it is."""
    job = accepted(no_workers.submit())

    assert no_workers.job(job["id"], wait=1)["status"] == "queued"


def test_a_job_that_ended_is_not_waited_for(service: Service) -> None:
    """It cannot change any more, so it comes at once."""
    job_id = service.ended(prompted(service, "read"))["id"]

    response = service.http.get(f"/v1/jobs/{job_id}", params={"wait": 60}, timeout=30)

    assert response.json()["status"] == "completed"


def test_partial_shows_the_pages_that_are_done(service: Service) -> None:
    """With `include=partial` a job that runs shows what it has; without, it shows no result."""
    job_id = prompted(service, "sleep 0.7", pages=20)

    def partial() -> object:
        job = service.http.get(f"/v1/jobs/{job_id}", params={"include": "partial"}).json()
        return job["status"] == "in_progress" and job["result"].get("pages")

    pages = eventually(partial, what="the first page")
    without = service.job(job_id)
    service.http.delete(f"/v1/jobs/{job_id}")
    assert 0 < len(pages) < 20
    assert all(page["text"] == f"page {64 + page['index']}x48" for page in pages)
    assert (without["status"], without.get("result")) == ("in_progress", None)


def test_parts_show_how_each_page_fared(service: Service) -> None:
    """With `include=parts` a job lists its parts: which page each is, where it stands, and what went wrong."""
    job_id = service.ended(accepted(service.submit(file=document(300, 2)))["id"])["id"]

    good, bad = parts(service, job_id)

    good.pop("run_ms", None)  # left out when it rounds to nothing
    assert good == {"number": 0, "state": "completed", "retries": 0, "input": 0, "page": 1}
    assert (bad["number"], bad["state"], bad["page"]) == (1, "failed", 2)
    assert bad["error"]["code"] == "image_too_small"


def test_bytes_of_the_file_are_told(service: Service) -> None:
    """Size and hash are those of the file as it was sent."""
    (file,) = accepted(service.submit())["input"]

    assert (file["bytes"], len(file["sha256"])) == (len(png()), 64)
