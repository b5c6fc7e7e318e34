"""POST /v1/jobs/{id}/retry: a failed or cancelled job runs again, all of it, while its input is kept."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from phi4.job import new_id
from tests.conftest import Service
from tests.event_streams import all_events, told
from tests.refusals import Bad, check
from tests.scripted_jobs import accepted, parts, prompted, running


def retry(service: Service, job_id: str) -> str:
    """Run a job again; gives its id back."""
    response = service.http.post(f"/v1/jobs/{job_id}/retry")
    assert response.status_code == 202, response.text
    assert response.headers["Location"] == f"/v1/jobs/{job_id}"
    return job_id


def fails_first(service: Service, **fields: str) -> str:
    """A job that has failed because no part of it may be tried twice within a run; it would succeed now."""
    words = f"fail thrice {new_id('t')}"
    job = service.ended(prompted(service, words, **fields))
    assert (job["status"], job["attempts"]) == ("failed", 1)
    return str(job["id"])


def test_a_failed_job_runs_again_and_may_succeed(service: Service) -> None:
    """The same id with a new run: its own attempts, times, result and usage, and nothing of the failure."""
    job_id = fails_first(service)

    job = service.ended(retry(service, job_id))

    assert (job["status"], job["attempts"], job.get("error")) == ("completed", 2, None)
    assert job["result"]["pages"][0]["text"] == "page 64x48"
    assert job["progress"] == {"completed": 1, "total": 1, "unit": "page"}
    assert job["usage"] == {"pages": 1, "prompt_tokens": 10, "completion_tokens": 3}


def test_a_job_that_fails_again_counts_its_runs(service: Service) -> None:
    """There is no bound on how often it may be tried."""
    job_id = prompted(service, "cannot")
    for attempts in (1, 2, 3):
        job = service.ended(job_id)
        assert (job["status"], job["attempts"]) == ("failed", attempts)
        retry(service, job_id)
    service.ended(job_id)


def test_a_cancelled_job_runs_again_from_its_begin(service: Service) -> None:
    """Every part runs, also those that had been done: what they gave went with the cancelled run."""
    words = f"speak 0.2 a|b|c|d {new_id('c')}"
    job_id = running(service, prompted(service, words, pages=12))
    service.http.post(f"/v1/jobs/{job_id}/cancel")
    assert service.ended(job_id)["status"] == "cancelled"

    job = service.ended(retry(service, job_id))

    assert (job["status"], job["attempts"]) == ("completed", 2)
    assert [page["text"] for page in job["result"]["pages"]] == [f"page {64 + n}x48" for n in range(12)]
    assert [part["state"] for part in parts(service, job_id)] == ["completed"] * 12


def test_a_job_that_could_not_be_prepared_is_prepared_again(service: Service) -> None:
    """It fails for the same reason while its input is the same."""
    params = json.dumps({"pages": "7"})
    job_id = accepted(service.submit(params=params))["id"]
    first = service.ended(job_id)

    second = service.ended(retry(service, job_id))

    assert first["error"]["code"] == second["error"]["code"] == "page_out_of_range"
    assert second["attempts"] == 2


def test_the_stream_begins_anew_and_its_numbers_go_on(service: Service) -> None:
    """A reader of the first run comes back with its last id and hears of the second run, whole."""
    job_id = fails_first(service)
    before = all_events(service, job_id)
    retry(service, job_id)

    events = all_events(service, job_id, int(before[-1].id))

    assert told(before)[-2:] == ["failed", "error engine_failed"]
    assert told(events) == ["queued", "in_progress", (1, 1), "completed", "result"]
    assert int(events[0].id) == int(before[-1].id) + 1
    assert events[0].json()["attempts"] == 2


def test_a_deadline_counts_from_the_retry(service: Service) -> None:
    """The next run has the whole of `cancel_after` again."""
    job_id = prompted(service, "sleep 60", cancel_after="1")
    assert service.ended(job_id)["error"]["code"] == "deadline_exceeded"

    job = service.ended(retry(service, job_id))

    assert (job["status"], job["error"]["code"], job["attempts"]) == ("cancelled", "deadline_exceeded", 2)
    assert job["timings"]["run_ms"] >= 500


def test_retries_at_once_make_one_run(service: Service) -> None:
    """Whoever comes second finds it done, or is told that the job runs."""
    job_id = running(service, prompted(service, "sleep 60"))
    service.http.post(f"/v1/jobs/{job_id}/cancel")
    service.ended(job_id)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: service.http.post(f"/v1/jobs/{job_id}/retry"), range(8)))
    attempts = service.job(job_id)["attempts"]
    service.http.delete(f"/v1/jobs/{job_id}")

    assert {a.status_code for a in answers} <= {202, 409}
    assert attempts == 2
    assert {a.json()["attempts"] for a in answers if a.status_code == 202} == {2}


@pytest.mark.parametrize(("words", "status"), [("read", "completed"), ("sleep 60", "in_progress")])
def test_only_a_failed_or_cancelled_job_runs_again(service: Service, words: str, status: str) -> None:
    """409 that says how the job stands."""
    job_id = prompted(service, words)
    job_id = running(service, job_id) if words != "read" else service.ended(job_id)["id"]

    response = service.http.post(f"/v1/jobs/{job_id}/retry")
    service.http.delete(f"/v1/jobs/{job_id}")

    check(response, Bad(409, "not_retryable"))
    assert response.json()["job_status"] == status


def test_a_job_whose_input_is_gone_does_not_run_again(service: Service) -> None:
    """409: with `input_retention: until_done` the input went when the job ended."""
    job_id = service.ended(prompted(service, "cannot", input_retention="until_done"))["id"]

    response = service.http.post(f"/v1/jobs/{job_id}/retry")

    check(response, Bad(409, "not_retryable"))
    assert "until_done" in response.json()["detail"]


def test_there_is_no_retry_of_a_job_that_is_not_there(service: Service) -> None:
    """404 for an id that nobody has."""
    check(service.http.post(f"/v1/jobs/{new_id('job')}/retry"), Bad(404, "not_found"))
