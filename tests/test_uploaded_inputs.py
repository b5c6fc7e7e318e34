"""A file that was uploaded once is the input of any number of jobs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from phi4.errors import StorageFull
from phi4.store import Store
from phi4.store.files import Files
from tests.conftest import Service, pdf, png
from tests.keyed_app import make_app


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


FILE = {"type": "file", "file": {"file_id": "file_x"}}
CHAT = {"model": "phi-4-multimodal", "messages": [{"role": "user", "content": [FILE] * 65}]}


@pytest.mark.parametrize(
    ("route", "body", "status"),
    [
        pytest.param("/v1/jobs", {"type": "ocr", "input": [{"file_id": "file_x"}] * 65}, 422, id="job"),
        pytest.param("/v1/chat/completions", CHAT, 400, id="chat"),
    ],
)
def test_more_inputs_than_allowed_are_refused_before_one_is_opened(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, route: str, body: dict[str, Any], status: int
) -> None:
    """A short request could else hold the same large file open, and copied, thousands of times."""
    opened: list[str] = []
    monkeypatch.setattr("api.services.Services.stored", lambda _, file_id, owner: opened.append(file_id))

    refused = make_app(store, tmp_path).test_client().post(route, json=body)

    assert (refused.status_code, opened) == (status, [])
    assert "64" in refused.text


def test_an_upload_that_cannot_be_noted_leaves_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 when the store is full; its bytes go at once, since no record tells of them."""

    def full(*_: object) -> None:
        raise StorageFull

    monkeypatch.setattr(Files, "add", full)
    sent = {"purpose": "user_data", "file": (io.BytesIO(png()), "a.png")}
    refused = make_app(store, tmp_path).test_client().post("/v1/files", data=sent)

    assert refused.status_code == 503
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
