"""DELETE /v1/jobs/{id}: erases record, input and result, and stops what runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.api_alone import api_alone
from tests.conftest import Service, eventually
from tests.scripted_jobs import accepted, logged, prompted, running


def files(service: Service, job_id: str) -> list[Path]:
    """What the blob store holds of a job."""
    return list(service.data_dir.glob(f"blobs/*/{job_id}/**/*"))


def test_a_completed_job_is_erased(service: Service) -> None:
    """Its record, its input and its result are gone, and lists know it no more."""
    job_id = service.ended(prompted(service, "read"))["id"]
    assert files(service, job_id) != []

    answer = service.http.delete(f"/v1/jobs/{job_id}")

    assert (answer.status_code, answer.json()) == (200, {"id": job_id, "object": "job", "deleted": True})
    assert files(service, job_id) == []
    for address in ("", "/result"):
        assert service.http.get(f"/v1/jobs/{job_id}{address}").status_code == 404
    assert service.http.post(f"/v1/jobs/{job_id}/cancel").status_code == 404
    assert job_id not in [job["id"] for job in service.http.get("/v1/jobs").json()["data"]]


def test_deleting_twice_is_not_found(service: Service) -> None:
    """There is nothing left to erase."""
    job_id = service.ended(prompted(service, "read"))["id"]
    service.http.delete(f"/v1/jobs/{job_id}")

    assert service.http.delete(f"/v1/jobs/{job_id}").status_code == 404


def test_a_running_job_stops(service: Service) -> None:
    """The engine is told to stop, and nothing of the job comes back."""
    job_id = running(service, prompted(service, "sleep 60"))

    assert service.http.delete(f"/v1/jobs/{job_id}").status_code == 200

    eventually(lambda: logged(service, "infer", "part stopped", job_id), what="the part's end")
    assert service.http.get(f"/v1/jobs/{job_id}").status_code == 404
    assert files(service, job_id) == []


def test_a_queued_job_leaves_the_queue(valkey: str, tmp_path: Path) -> None:
    """No worker will ever meet it."""
    with api_alone(valkey, tmp_path) as api:
        job_id = accepted(api.submit())["id"]
        assert api.http.get("/health").json()["queues"] == {"prepare": 1}

        api.http.delete(f"/v1/jobs/{job_id}")

        assert api.http.get("/health").json()["queues"] == {}
        assert files(api, job_id) == []


@pytest.mark.parametrize("job_id", ["job_01m83vfqy1b4m423kpgcvgtnep", "nonsense"])
def test_an_unknown_job_is_not_found(service: Service, job_id: str) -> None:
    """A job that never was cannot be erased."""
    assert service.http.delete(f"/v1/jobs/{job_id}").status_code == 404
