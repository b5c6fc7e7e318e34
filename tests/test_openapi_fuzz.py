"""Requests made up from /openapi.json, right and wrong: a real API with keys answers as it says, never with 500."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import checks
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from api.openapi import document
from phi4.store import Store
from tests.api_alone import api_alone
from tests.conftest import Service, eventually
from tests.scripted_jobs import accepted

CONFIG = {
    # 503 is an honest answer of a service without workers.
    "checks": {"not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "503"]}},
    # The key is sent with each request, so its lack is not among the faults to be made up.
    "generation": {"with-security-parameters": False},
}
schema = schemathesis.openapi.from_dict(document("phi-4-multimodal"), config=SchemathesisConfig.from_dict(CONFIG))
FEW = settings(max_examples=20, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def closed(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An API with a key that its client sends; without workers, and where no request waits or streams."""
    none = {"PHI4_MAX_WAITING_REQUESTS": "0", "PHI4_MAX_EVENT_STREAMS": "0"}
    with api_alone(valkey, tmp_path_factory.mktemp("api"), **none) as service:
        token, _ = Store.at(service.redis_url).access.create("fuzz", "fuzz")
        eventually(lambda: service.http.get("/v1/jobs").status_code == 401, what="the key's being known")
        service.http.headers["Authorization"] = f"Bearer {token}"
        yield service


def send(case: schemathesis.Case, service: Service, *excluded: checks.CheckFunction) -> None:
    """Send a request and check its answer, and that the same one without its key or with a made-up one is refused."""
    case.call_and_validate(
        base_url=str(service.http.base_url),
        headers={"Authorization": service.http.headers["Authorization"]},
        excluded_checks=list(excluded),
        timeout=10,
    )


@pytest.mark.timeout(120)
@schema.parametrize()
@FEW
def test_every_answer_is_as_described(case: schemathesis.Case, closed: Service) -> None:
    """Status, content type and body are declared, and what breaks the rules is refused."""
    # A schema cannot say that base64 must hold a picture, so right by the schema is not always right.
    send(case, closed, positive_data_acceptance)


@pytest.mark.timeout(120)
@schema.include(path_regex="{job_id}").parametrize()
@FEW
def test_every_answer_about_a_job_is_as_described(case: schemathesis.Case, closed: Service) -> None:
    """The same of a job that is there: one that waits, and one that was cancelled."""
    for status in ("queued", "cancelled"):
        job_id = accepted(closed.submit())["id"]
        if status == "cancelled":
            closed.http.post(f"/v1/jobs/{job_id}/cancel")
        case.path_parameters["job_id"] = job_id
        send(case, closed, positive_data_acceptance, negative_data_rejection)
        closed.http.delete(f"/v1/jobs/{job_id}")


@pytest.mark.timeout(120)
@schema.include(path_regex="{(file|batch)_id}").parametrize()
@FEW
def test_every_answer_about_a_file_or_batch_is_as_described(case: schemathesis.Case, closed: Service) -> None:
    """The same of a file that was uploaded, and of a batch of it."""
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {}}
    sent = {"file": ("a.jsonl", json.dumps(line).encode())}
    file_id = closed.http.post("/v1/files", data={"purpose": "batch"}, files=sent).raise_for_status().json()["id"]
    asked = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    ids = {"file_id": file_id, "batch_id": closed.http.post("/v1/batches", json=asked).raise_for_status().json()["id"]}
    case.path_parameters.update({name: ids[name] for name in case.path_parameters})
    send(case, closed, positive_data_acceptance, negative_data_rejection)
    closed.http.delete(f"/v1/files/{file_id}")
