"""A job is worked on in parts: each is tried, counted, fails and waits by itself, and no job takes all the room."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from phi4.store import Store
from tests.conftest import Service, eventually, make_service
from tests.scripted_jobs import accepted, document, parts, prompted, running

# -- one part


def test_a_part_that_fails_once_is_tried_again(service: Service) -> None:
    """The job completes; only that part was run twice."""
    job = service.ended(prompted(service, f"fail once {uuid.uuid4()}", pages=3))

    assert (job["status"], job["progress"]["completed"]) == ("completed", 3)
    assert sorted(part["retries"] for part in parts(service, job["id"])) == [0, 0, 1]


@pytest.mark.parametrize(
    ("words", "code", "retries"),
    [("fail", "engine_failed", 2), ("raise", "engine_failed", 2), ("cannot", "engine_cannot_answer", 0)],
    ids=["the engine fails", "the engine has a bug", "the engine cannot"],
)
def test_a_part_that_always_fails_is_given_up(service: Service, words: str, code: str, retries: int) -> None:
    """Three tries in all, but only where another may help; the job has the parts' error when all failed alike."""
    job = service.ended(prompted(service, words, pages=2))

    assert (job["status"], job["error"]["code"], job["error"]["phase"]) == ("failed", code, "run")
    assert job["progress"] == {"completed": 2, "total": 2, "unit": "page"}
    assert [(p["state"], p["retries"], p["error"]["code"]) for p in parts(service, job["id"])] == [
        ("failed", retries, code)
    ] * 2


def test_one_bad_page_does_not_lose_the_document(service: Service) -> None:
    """The job completes; the page has an error in place of its text, and is not counted as read."""
    job = service.ended(accepted(service.submit(file=document(300, 2, 400)))["id"])

    first, bad, last = job["result"]["pages"]
    assert (job["status"], job["progress"]) == ("completed", {"completed": 3, "total": 3, "unit": "page"})
    assert (bad["index"], bad["page"], bad["text"], bad["error"]["code"]) == (1, 2, "", "image_too_small")
    assert "error" not in first | last
    assert job["result"]["text"] == f"{first['text']}\n\n{last['text']}"
    assert job["usage"]["pages"] == 2
    assert [part["state"] for part in parts(service, job["id"])] == ["completed", "failed", "completed"]


def test_pages_that_fail_for_different_reasons_fail_the_job(service: Service) -> None:
    """When nothing could be read, the job failed, and its message tells how the first part did."""
    job = service.ended(accepted(service.submit(file=document(2, 300), params='{"prompt": "cannot"}'))["id"])

    assert (job["status"], job["error"]["code"]) == ("failed", "all_parts_failed")
    assert "too small" in job["error"]["message"]


def test_only_the_pages_asked_for_become_parts(service: Service) -> None:
    """Each once, in the order asked."""
    job = service.ended(accepted(service.submit(file=document(*[300] * 9), params='{"pages": "7,2-4,3"}'))["id"])

    assert [page["page"] for page in job["result"]["pages"]] == [7, 2, 3, 4]
    assert (job["progress"]["total"], job["input"][0]["pages"]) == (4, 9)


# -- many parts


@pytest.fixture(scope="module")
def narrow(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose engine takes three parts at once, and where a job may have two in the queue."""
    url = valkey.removesuffix("/0") + "/14"
    Store.at(url).client.flushdb()
    limits = {"PHI4_JOB_WINDOW": "2", "PHI4_MAX_IN_FLIGHT": "3"}
    service = make_service(url, tmp_path_factory.mktemp("narrow"), **limits)
    try:
        service.start_all("tests.engines:Scripted")
        yield service
    finally:
        service.http.close()
        codes = service.stop_all()
    assert codes == dict.fromkeys(codes, 0)


def waiting(service: Service) -> Any:
    """How much waits, by queue."""
    return service.http.get("/health").json()["queues"]


def test_a_job_has_no_more_parts_in_the_queue_than_its_window(narrow: Service) -> None:
    """The rest is held back, and is dropped with the job."""
    job_id = prompted(narrow, "sleep 60", pages=6)

    eventually(
        lambda: [p["state"] for p in parts(narrow, job_id)] == ["running"] * 2 + ["waiting"] * 4, what="two parts"
    )
    figures = httpx.get(f"http://127.0.0.1:{narrow.env['PHI4_METRICS_PORT']}/metrics").text

    assert waiting(narrow) == {"held": 4}
    assert 'phi4_queue_depth{queue="held"} 4.0' in figures
    narrow.http.post(f"/v1/jobs/{job_id}/cancel")
    assert narrow.ended(job_id)["status"] == "cancelled"
    assert waiting(narrow) == {}


def test_each_finished_part_lets_the_next_one_in(narrow: Service) -> None:
    """A job of many parts gets through a small window, and its progress only grows."""
    job_id = prompted(narrow, "sleep 0.05", pages=9)

    seen = [0]
    while (job := narrow.job(job_id))["status"] in ("queued", "in_progress") and len(seen) < 10_000:
        seen.append(job["progress"]["completed"])

    assert (job["status"], job["progress"]["completed"]) == ("completed", 9)
    assert seen == sorted(seen)
    assert [page["text"] for page in job["result"]["pages"]] == [f"page {64 + n}x48" for n in range(9)]


def test_a_small_job_overtakes_a_big_one(narrow: Service) -> None:
    """A big job that came first does not keep a small one waiting."""
    big = running(narrow, prompted(narrow, "sleep 60", pages=12))

    small = narrow.ended(prompted(narrow, "read", pages=3))

    big_job = narrow.job(big)
    narrow.http.delete(f"/v1/jobs/{big}")
    assert small["status"] == "completed"
    assert (big_job["status"], big_job["progress"]["completed"]) == ("in_progress", 0)


def test_the_urgent_goes_first(narrow: Service, tmp_path: Path) -> None:
    """Of jobs that wait, high goes before normal before low, whichever came first."""
    order = tmp_path / "order"
    blockers = [running(narrow, prompted(narrow, "sleep 60")) for _ in range(3)]
    jobs = {p: prompted(narrow, f"record {order}", priority=p) for p in ("low", "normal", "high")}
    eventually(lambda: waiting(narrow) == {f"infer.vision.{p}": 1 for p in jobs}, what="three jobs waiting")

    narrow.http.delete(f"/v1/jobs/{blockers[0]}")

    assert [narrow.ended(jobs[p])["status"] for p in jobs] == ["completed"] * 3
    for blocker in blockers[1:]:
        narrow.http.delete(f"/v1/jobs/{blocker}")
    ran = [line.split("-")[0] for line in order.read_text().splitlines()]
    assert ran == [jobs["high"], jobs["normal"], jobs["low"]]
