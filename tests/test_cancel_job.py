"""POST /v1/jobs/{id}/cancel: what waits is dropped, what runs stops, what ended stays."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
import soundfile

from tests.api_alone import api_alone
from tests.conftest import Service, eventually
from tests.scripted_jobs import accepted, logged, parts, prompted, running


@pytest.fixture(scope="module")
def no_workers(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An API without workers: every job stays queued."""
    with api_alone(valkey, tmp_path_factory.mktemp("api")) as service:
        yield service


def test_a_queued_job_is_cancelled_at_once(no_workers: Service) -> None:
    """Nothing works on it, so there is nothing to wait for; its place in the queue is free."""
    job_id = accepted(no_workers.submit())["id"]

    job = no_workers.http.post(f"/v1/jobs/{job_id}/cancel").json()

    assert (job["status"], job["error"]["code"], job["error"]["category"]) == ("cancelled", "cancelled", "cancelled")
    assert job["completed_at"] is not None
    assert job == no_workers.job(job_id)
    assert no_workers.http.get("/health").json()["queues"] == {}


@pytest.mark.parametrize(("retention", "kept"), [("until_done", 0), ("until_expiry", 1)])
def test_a_queued_job_s_upload_goes_with_it(no_workers: Service, retention: str, kept: int) -> None:
    """Unless it is kept, for instance to run the job again."""
    job_id = accepted(no_workers.submit(input_retention=retention))["id"]
    pattern = f"blobs/*/{job_id}/input-0"
    assert len(list(no_workers.data_dir.glob(pattern))) == 1

    no_workers.http.post(f"/v1/jobs/{job_id}/cancel").raise_for_status()

    assert len(list(no_workers.data_dir.glob(pattern))) == kept


def test_a_running_job_stops(service: Service) -> None:
    """Every part that runs is stopped in the engine, and only then the job is `cancelled`."""
    job_id = prompted(service, "sleep 60", pages=2)
    eventually(lambda: [p["state"] for p in parts(service, job_id)] == ["running"] * 2, what="two parts running")

    answer = service.http.post(f"/v1/jobs/{job_id}/cancel")

    assert (answer.status_code, answer.json()["status"]) == (200, "cancelling")
    job = service.ended(job_id)
    assert (job["status"], job["error"]["code"], job["progress"]["completed"]) == ("cancelled", "cancelled", 0)
    stopped = eventually(lambda: logged(service, "infer", "part stopped", job_id), what="the parts' end")
    assert {line["unit"] for line in stopped} <= {"0", "1"}


def test_hours_of_silence_are_not_listened_to_after_that(service: Service) -> None:
    """They give no clip between which to look up; the worker that reads them hears of it all the same, and lives on."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 8_000, 1, format="FLAC", subtype="PCM_16") as sound:
        for _ in range(4 * 60):
            sound.write(np.zeros(60 * 8_000, "int16"))
    job_id = accepted(service.submit("asr", file.getvalue()))["id"]
    before = {w["name"] for w in service.http.get("/health").json()["workers"]}
    eventually(lambda: any(w["in_flight"] for w in service.http.get("/health").json()["workers"]), what="its start")

    service.http.post(f"/v1/jobs/{job_id}/cancel")

    assert service.ended(job_id)["status"] == "cancelled"
    assert before <= {w["name"] for w in service.http.get("/health").json()["workers"]}


def test_a_cancelled_job_keeps_what_was_done(service: Service) -> None:
    """Pages that were read can still be had with `include=partial`; the result as such does not exist."""
    job_id = prompted(service, "sleep 0.7", pages=20)
    eventually(lambda: service.job(job_id)["progress"]["completed"], what="the first page")

    service.http.post(f"/v1/jobs/{job_id}/cancel")

    assert service.ended(job_id)["status"] == "cancelled"
    job = service.http.get(f"/v1/jobs/{job_id}", params={"include": "partial"}).json()
    texts = [page["text"] for page in job["result"]["pages"]]
    assert 0 < sum(map(bool, texts)) < 20
    assert job["progress"]["completed"] == sum(map(bool, texts))
    assert service.http.get(f"/v1/jobs/{job_id}/result").status_code == 409


def test_cancelling_twice_changes_nothing_more(service: Service) -> None:
    """The route is idempotent: the second call answers the same job."""
    job_id = running(service, prompted(service, "sleep 60"))
    service.http.post(f"/v1/jobs/{job_id}/cancel")
    ended = service.ended(job_id)

    again = service.http.post(f"/v1/jobs/{job_id}/cancel")

    assert (again.status_code, again.json()) == (200, ended)


@pytest.mark.parametrize(("words", "status"), [("read", "completed"), ("cannot", "failed")])
def test_a_job_that_ended_stays_as_it_is(service: Service, words: str, status: str) -> None:
    """It is answered unchanged, with its result or its error."""
    ended = service.ended(prompted(service, words))

    answer = service.http.post(f"/v1/jobs/{ended['id']}/cancel")

    assert ended["status"] == status
    assert (answer.status_code, answer.json()) == (200, ended)


def test_a_deadline_cancels(service: Service) -> None:
    """`cancel_after` counts seconds from the submission, and has its own code."""
    job = service.ended(prompted(service, "sleep 60", cancel_after="1"))

    assert (job["status"], job["error"]["code"]) == ("cancelled", "deadline_exceeded")


def test_a_job_that_ends_in_time_is_not_cancelled(service: Service) -> None:
    """A deadline that is met leaves no trace."""
    job = service.ended(prompted(service, "read", cancel_after="60"))

    assert (job["status"], job.get("error")) == ("completed", None)
