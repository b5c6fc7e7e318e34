"""A file that was uploaded once is the input of any number of jobs."""

from __future__ import annotations

import pytest

from tests.conftest import Service, pdf, png


def uploaded(service: Service, content: bytes) -> str:
    """Upload a file; gives its id."""
    files = {"file": ("scan.pdf", content)}
    return str(service.http.post("/v1/files", data={"purpose": "user_data"}, files=files).json()["id"])


def test_a_job_reads_an_uploaded_file(service: Service) -> None:
    """By its id, beside other inputs; the job keeps what it read when the file is erased."""
    file = uploaded(service, pdf(2))
    asked = {"type": "ocr", "input": [{"file_id": file}, {"file_id": file, "filename": "again.pdf"}]}

    job = service.http.post("/v1/jobs", json=asked, headers={"Prefer": "wait=30"})
    service.http.delete(f"/v1/files/{file}")

    assert job.status_code == 200
    assert [one["filename"] for one in job.json()["input"]] == ["scan.pdf", "again.pdf"]
    assert [page["input"] for page in job.json()["result"]["pages"]] == [0, 0, 1, 1]
    assert service.job(job.json()["id"])["result"] == job.json()["result"]


@pytest.mark.parametrize(
    "given", [{"file_id": "file_none"}, {"file_id": ""}, {"file_id": "file_x", "url": "http://a/"}]
)
def test_what_is_no_file_is_refused(service: Service, given: dict[str, str]) -> None:
    """422, naming the input."""
    refused = service.http.post("/v1/jobs", json={"type": "ocr", "input": given})

    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"].startswith("input.0")


def test_a_file_of_the_wrong_kind_is_refused(service: Service) -> None:
    """As if it had been sent with the job."""
    refused = service.http.post("/v1/jobs", json={"type": "asr", "input": {"file_id": uploaded(service, png())}})

    assert refused.status_code == 415
