"""/livez, /readyz, /health and the metrics port: what an operator and an orchestrator ask."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from phi4 import __version__
from tests.api_alone import api_alone
from tests.conftest import Service, eventually
from tests.scripted_jobs import prompted


@pytest.fixture(scope="module")
def no_workers(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An API that nobody works for, and that is told to say so to callers."""
    with api_alone(valkey, tmp_path_factory.mktemp("api"), PHI4_REJECT_UNSERVED="1") as service:
        yield service


def metrics(service: Service) -> dict[str, float]:
    """Every figure on the metrics port by its name and labels."""
    text = httpx.get(f"http://127.0.0.1:{service.env['PHI4_METRICS_PORT']}/metrics").raise_for_status().text
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def test_livez_answers_with_and_without_workers(service: Service, no_workers: Service) -> None:
    """It tells only that the process can answer."""
    for one in (service, no_workers):
        response = one.http.get("/livez")
        assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_readyz_needs_a_worker_whose_engine_answered(service: Service, no_workers: Service) -> None:
    """200 when a job sent now would be worked on, else 503 with the reason."""
    yes, no = service.http.get("/readyz"), no_workers.http.get("/readyz")

    assert (yes.status_code, yes.json()) == (200, {"status": "ok"})
    assert (no.status_code, no.json()["code"]) == (503, "no_worker")
    assert int(no.headers["Retry-After"]) > 0
    assert no.headers["Content-Type"] == "application/problem+json"


def test_health_shows_workers_and_limits(service: Service) -> None:
    """Each worker with what it serves, and every limit a caller may run into."""
    health = service.http.get("/health").json()

    assert (health["status"], health["version"]) == ("ok", __version__)
    engine, side = sorted(health["workers"], key=lambda w: str(w["name"]))
    assert (engine["engine"], engine["model"], engine["stage"], engine["slots"]) == (
        "scripted",
        "scripted-1",
        "ready",
        8,
    )
    assert len(engine["queues"]) == 9
    assert (side["engine"], side["stage"], side["queues"]) == ("", "ready", ["prepare", "webhooks"])
    assert health["limits"] == {
        "max_body_mb": 200,
        "max_pixels": 100_000_000,
        "max_pages": 1_000,
        "max_audio_seconds": 14_400,
        "max_inputs": 64,
        "max_queued_parts": 100_000,
        "job_window": 32,
        "max_event_streams": 200,
    }


def test_health_counts_how_jobs_and_webhooks_ended(service: Service) -> None:
    """Since the store was empty: jobs by type and status, tries of deliveries by outcome."""
    before = service.http.get("/health").json()["ended"].get("ocr", {}).get("completed", 0)

    service.ended(prompted(service, "read"))

    health = service.http.get("/health").json()
    assert health["ended"]["ocr"]["completed"] > before
    assert health["webhooks"].keys() <= {"delivered", "retry", "gone", "given_up"}


def test_health_without_workers_is_degraded(no_workers: Service) -> None:
    """It answers 200 all the same: it is a report, not a probe."""
    response = no_workers.http.get("/health")

    assert (response.status_code, response.json()["status"], response.json()["workers"]) == (200, "degraded", [])


def test_a_service_may_refuse_what_nobody_serves(no_workers: Service) -> None:
    """With PHI4_REJECT_UNSERVED=1 a job is not accepted while no worker takes its type."""
    response = no_workers.submit()

    assert (response.status_code, response.json()["code"]) == (503, "no_worker_for_type")
    assert int(response.headers["Retry-After"]) > 0


def test_metrics_count_jobs_requests_and_workers(service: Service) -> None:
    """The figures move with what happens."""
    ended = 'phi4_jobs_ended_total{status="completed",type="ocr"}'
    posted = 'phi4_http_requests_total{method="POST",route="/v1/jobs",status="202"}'
    before = metrics(service)

    service.ended(prompted(service, "read"))

    after = eventually(lambda: (m := metrics(service))[ended] > before.get(ended, 0) and m, what="the job's count")
    assert after[ended] == before.get(ended, 0) + 1
    assert after[posted] == before.get(posted, 0) + 1
    assert after['phi4_workers{engine="scripted",stage="ready"}'] == 1
    assert after['phi4_http_seconds_count{method="POST",route="/v1/jobs"}'] >= after[posted]


def test_strange_addresses_make_no_series(service: Service) -> None:
    """Neither unknown paths nor invented methods become labels."""
    service.http.get("/nowhere/at/all")
    service.http.request("BREW", "/v1/jobs")

    names = "".join(metrics(service))

    assert "nowhere" not in names
    assert "BREW" not in names
    assert 'route="unknown"' in names


def test_metrics_have_a_port_of_their_own(service: Service) -> None:
    """Callers of the API cannot read them."""
    assert service.http.get("/metrics").status_code == 404
