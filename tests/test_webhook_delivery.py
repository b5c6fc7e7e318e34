"""Webhooks as a receiver sees them: signed, told apart, and sent again until they arrive."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Service, eventually, png
from tests.scripted_jobs import accepted, prompted, running
from tests.servers import Reply, Request, Web, web

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def receiver() -> Iterator[Web]:
    """A caller's server on loopback, which PHI4_ALLOW_HOSTS lists."""
    with web() as running:
        yield running


def checked(service: Service, request: Request) -> dict[str, Any]:
    """Verify a delivery as Standard Webhooks has it, by hand; gives its body."""
    name, sent = request.headers["webhook-id"], request.headers["webhook-timestamp"]
    secret = base64.b64decode(service.env["PHI4_WEBHOOK_SECRET"].removeprefix("whsec_"))
    mac = hmac.digest(secret, f"{name}.{sent}.".encode() + request.body, hashlib.sha256)
    assert request.headers["webhook-signature"] == "v1," + base64.b64encode(mac).decode()
    assert abs(time.time() - int(sent)) < 300
    assert (request.method, request.headers["content-type"]) == ("POST", "application/json")
    event: dict[str, Any] = json.loads(request.body)
    assert event["id"] == name
    return event


def deliveries(receiver: Web, count: int, *, seconds: float = 20.0) -> list[Request]:
    """Wait for so many requests."""
    return list(eventually(lambda: len(receiver.seen) >= count and receiver.seen, seconds=seconds, what="deliveries"))


def test_a_completed_job_is_told_with_its_result(service: Service, receiver: Web) -> None:
    """The body says which job, and carries the metadata and a small result."""
    job_id = prompted(service, "read", webhook_url=f"{receiver.url}/hook?x=1", metadata='{"order": "7"}')

    (request,) = deliveries(receiver, 1)

    event = checked(service, request)
    job = service.ended(job_id)
    assert request.path == "/hook?x=1"
    assert event["id"].startswith("evt_")
    assert abs(event.pop("created_at") - job["completed_at"]) <= 1
    assert event == {
        "id": event["id"],
        "event": "job.completed",
        "job": {
            "id": job_id,
            "type": "ocr",
            "status": "completed",
            "metadata": {"order": "7"},
            "result": job["result"],
        },
    }


@pytest.mark.parametrize(
    ("file", "params", "code"),
    [(png(), {"prompt": "cannot"}, "engine_cannot_answer"), (png(), {"pages": "2"}, "page_out_of_range")],
    ids=["in the engine", "in the preparation"],
)
def test_a_failed_job_is_told_with_its_error(
    service: Service, receiver: Web, file: bytes, params: dict[str, str], code: str
) -> None:
    """The error is the job's own."""
    job = accepted(service.submit(file=file, params=json.dumps(params), webhook_url=receiver.url))

    (request,) = deliveries(receiver, 1)

    event = checked(service, request)
    assert (event["event"], event["job"]["id"], event["job"]["status"]) == ("job.failed", job["id"], "failed")
    assert event["job"]["error"] == service.job(job["id"])["error"]
    assert event["job"]["error"]["code"] == code


def test_a_cancelled_job_is_told(service: Service, receiver: Web) -> None:
    """Also to those who cancelled it themselves."""
    job_id = running(service, prompted(service, "sleep 60", webhook_url=receiver.url))
    service.http.post(f"/v1/jobs/{job_id}/cancel")

    (request,) = deliveries(receiver, 1)

    event = checked(service, request)
    assert (event["event"], event["job"]["status"]) == ("job.cancelled", "cancelled")


def test_only_the_events_asked_for_are_sent(service: Service, receiver: Web) -> None:
    """`job.started` comes when asked for; in a form the events are separated by commas."""
    prompted(service, "read", webhook_url=receiver.url, webhook_events="job.started, job.failed")
    prompted(service, "read", webhook_url=receiver.url, webhook_events="job.started,job.completed")

    events = [checked(service, request)["event"] for request in deliveries(receiver, 3)]

    assert sorted(events) == ["job.completed", "job.started", "job.started"]


def test_a_delivery_that_was_not_taken_comes_again(service: Service, receiver: Web) -> None:
    """After a 500 the same event comes under the same id, signed afresh; after a 200 it comes no more."""
    receiver.answer = lambda _: Reply(500 if len(receiver.seen) == 1 else 200)
    prompted(service, "read", webhook_url=receiver.url)

    first, second = deliveries(receiver, 2, seconds=30)

    assert checked(service, first) == checked(service, second)
    assert int(second.headers["webhook-timestamp"]) > int(first.headers["webhook-timestamp"])
    assert second.headers["webhook-signature"] != first.headers["webhook-signature"]


def test_a_delivery_carries_the_trace(service: Service, receiver: Web) -> None:
    """A receiver can join its own trace to the caller's."""
    service.http.post(
        "/v1/jobs",
        data={"type": "ocr", "webhook_url": receiver.url},
        files={"file": png()},
        headers={"traceparent": TRACEPARENT},
    )

    (request,) = deliveries(receiver, 1)

    assert request.headers["traceparent"].split("-")[1] == TRACEPARENT.split("-")[1]


def test_a_deleted_job_is_not_told(service: Service, receiver: Web) -> None:
    """Who erases a job wants to hear no more of it."""
    deleted = running(service, prompted(service, "sleep 60", webhook_url=receiver.url))
    service.http.delete(f"/v1/jobs/{deleted}")
    later = prompted(service, "read", webhook_url=receiver.url)

    deliveries(receiver, 1)

    assert [checked(service, request)["job"]["id"] for request in receiver.seen] == [later]
