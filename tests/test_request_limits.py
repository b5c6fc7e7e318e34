"""What a service takes at most, and what it cannot take as it is set up."""

from __future__ import annotations

import base64
import json
import resource
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.api_alone import api_alone
from tests.conftest import Service, png
from tests.refusals import Bad, check, wrong_field
from tests.scripted_jobs import accepted

JOB: dict[str, Any] = {"type": "ocr", "input": {"data": base64.b64encode(png()).decode()}}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def narrow(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An API that takes 1 MB a request, lets two jobs and no request wait, and has no secret for webhooks."""
    limits = {
        "PHI4_MAX_BODY_MB": "1",
        "PHI4_MAX_QUEUED_PARTS": "2",
        "PHI4_MAX_WAITING_REQUESTS": "0",
        "PHI4_WEBHOOK_SECRET": "",
    }
    with api_alone(valkey, tmp_path_factory.mktemp("api"), **limits) as service:
        yield service


BIG = b"x" * 5_000_000


def test_a_body_for_which_the_disk_has_no_room_is_refused(narrow: Service) -> None:
    """Large bodies are kept in temporary files; when these can grow no more, the answer says to try again later."""
    api = psutil.Process(narrow.processes["api"].pid)
    limited = [api, *api.children()]
    for process in limited:
        process.rlimit(psutil.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    try:
        response = narrow.submit(file=bytes(900_000))
    finally:
        for process in limited:
            process.rlimit(psutil.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    assert (response.status_code, response.json()["code"]) == (503, "storage_full")
    assert int(response.headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    "request_of",
    [
        {"content": BIG, "headers": JSON},
        {"content": iter([json.dumps(JOB).encode()[:-1], b', "x": "', BIG, b'"}']), "headers": JSON},
        {"data": {"type": "ocr"}, "files": {"file": png() + BIG}},
    ],
    ids=["JSON", "JSON of unknown length", "multipart"],
)
def test_a_body_past_the_limit_is_refused(narrow: Service, request_of: dict[str, Any]) -> None:
    """413 that the client gets to see, though it was still sending."""
    check(narrow.http.post("/v1/jobs", **request_of), Bad(413, "too_large"))


def test_a_webhook_needs_a_secret(narrow: Service) -> None:
    """A service that cannot sign refuses, and says which setting is missing."""
    response = narrow.http.post("/v1/jobs", json=JOB | {"webhook_url": "https://example.com/"})

    check(response, wrong_field("webhook_url"))
    assert "PHI4_WEBHOOK_SECRET" in response.json()["detail"]


def test_a_request_that_finds_no_room_to_wait_is_answered_at_once(narrow: Service) -> None:
    """The job is taken, and the answer does not claim that it was waited for."""
    response = narrow.http.post("/v1/jobs", json=JOB, headers={"Prefer": "wait=30"}, timeout=10)

    assert accepted(response)["status"] == "queued"
    assert "Preference-Applied" not in response.headers
    narrow.http.delete(response.headers["Location"])


def test_a_full_queue_takes_no_more(narrow: Service) -> None:
    """429 with Retry-After; what waits is not lost, and its room is given back."""
    first, second = (accepted(narrow.submit())["id"] for _ in range(2))

    full = narrow.submit()

    check(full, Bad(429, "queue_full"))
    assert int(full.headers["Retry-After"]) > 0
    assert [narrow.job(job_id)["status"] for job_id in (first, second)] == ["queued", "queued"]
    narrow.http.delete(f"/v1/jobs/{first}")
    narrow.http.delete(f"/v1/jobs/{accepted(narrow.submit())['id']}")
    narrow.http.delete(f"/v1/jobs/{second}")
    assert list(narrow.data_dir.glob("blobs/*/job_*")) == []
