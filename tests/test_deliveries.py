"""GET /v1/jobs/{id}/deliveries tells what became of a job's webhooks; POST …/{delivery_id}/replay sends one again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from phi4.store import Store
from tests.conftest import Service, eventually
from tests.keyed_app import keyed
from tests.making_jobs import make_due, new_job, reap_until
from tests.scripted_jobs import prompted, running
from tests.servers import Reply, Web, web


@pytest.fixture
def receiver() -> Iterator[Web]:
    """A caller's server on loopback, which PHI4_ALLOW_HOSTS lists."""
    with web() as running:
        yield running


def told(service: Service, job_id: str) -> list[dict[str, Any]]:
    """What is told of a job's deliveries."""
    response = service.http.get(f"/v1/jobs/{job_id}/deliveries")
    assert response.status_code == 200, response.text
    body = response.json()
    assert (body["object"], body["has_more"]) == ("list", False)
    return list(body["data"])


def tried(service: Service, job_id: str, times: int, state: str) -> dict[str, Any]:
    """Wait until a job's only event was tried so often; gives its delivery."""
    delivery: dict[str, Any] = eventually(
        lambda: (d := told(service, job_id)) and len(d[0]["attempts"]) == times and d[0], what="the tries"
    )
    assert delivery["state"] == state
    return delivery


def replayed(service: Service, job_id: str, delivery_id: str) -> dict[str, Any]:
    """Send an event again; the answer is 202 with the delivery."""
    response = service.http.post(f"/v1/jobs/{job_id}/deliveries/{delivery_id}/replay")
    assert response.status_code == 202, response.text
    return dict(response.json())


def test_every_try_is_told(service: Service, receiver: Web) -> None:
    """When, how long, and what the receiver said; while it is retried, when the next one comes."""
    receiver.answer = lambda _: Reply(503)
    job_id = prompted(service, "read", webhook_url=receiver.url)

    delivery = tried(service, job_id, 1, "pending")

    [request] = receiver.seen
    assert delivery["id"] == request.headers["webhook-id"]
    assert (delivery["object"], delivery["event"]) == ("delivery", "job.completed")
    [attempt] = delivery["attempts"]
    assert (attempt["number"], attempt["status"], attempt["error"]) == (1, 503, None)
    assert delivery["created_at"] <= attempt["at"] <= delivery["next_attempt_at"]
    assert 4 <= delivery["next_attempt_at"] - attempt["at"] <= 8
    assert 0 <= attempt["duration_ms"] < 10_000
    service.http.delete(f"/v1/jobs/{job_id}")


def test_why_there_was_no_answer_is_told(service: Service) -> None:
    """In a few words."""
    job_id = prompted(service, "read", webhook_url="http://127.0.0.1:1/")

    [attempt] = tried(service, job_id, 1, "pending")["attempts"]

    assert (attempt["status"], attempt["error"]) == (None, "127.0.0.1 could not be reached: no connection.")
    service.http.delete(f"/v1/jobs/{job_id}")


def test_the_newest_event_comes_first(service: Service, receiver: Web) -> None:
    """Each event is a delivery of its own, with an id of its own."""
    job_id = running(
        service, prompted(service, "sleep 60", webhook_url=receiver.url, webhook_events="job.started,job.cancelled")
    )
    service.http.post(f"/v1/jobs/{job_id}/cancel")

    eventually(lambda: [d["state"] for d in told(service, job_id)] == ["delivered"] * 2, what="both deliveries")

    assert [d["event"] for d in told(service, job_id)] == ["job.cancelled", "job.started"]
    assert len({d["id"] for d in told(service, job_id)}) == 2
    assert [d["next_attempt_at"] for d in told(service, job_id)] == [None, None]


def test_a_job_without_webhooks_has_no_deliveries(service: Service) -> None:
    """An empty list; and nothing can be sent again."""
    job_id = prompted(service, "read")
    service.ended(job_id)

    assert told(service, job_id) == []
    response = service.http.post(f"/v1/jobs/{job_id}/deliveries/evt_none/replay")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(("status", "state"), [(200, "delivered"), (410, "gone")])
def test_an_event_that_is_over_can_be_sent_again(service: Service, receiver: Web, status: int, state: str) -> None:
    """Also after 410: the receiver may have been put right. It keeps its id, so that a receiver can tell a repeat."""
    receiver.answer = lambda _: Reply(status)
    job_id = prompted(service, "read", webhook_url=receiver.url)
    delivery = tried(service, job_id, 1, state)
    assert delivery["next_attempt_at"] is None
    receiver.answer = lambda _: Reply(204)

    again = replayed(service, job_id, delivery["id"])

    assert (again["id"], again["state"]) == (delivery["id"], "pending")
    after = tried(service, job_id, 2, "delivered")
    assert [(a["number"], a["status"]) for a in after["attempts"]] == [(1, status), (2, 204)]
    assert [r.headers["webhook-id"] for r in receiver.seen] == [delivery["id"]] * 2
    assert receiver.seen[0].body == receiver.seen[1].body
    for request in receiver.seen:
        Webhook(service.env["PHI4_WEBHOOK_SECRET"]).verify(request.body, request.headers)


def test_a_replay_is_retried_as_often_as_a_new_event(service: Service, receiver: Web) -> None:
    """A delivery that waits for its next try is sent at once, and has all its tries before it again."""
    receiver.answer = lambda _: Reply(503)
    job_id = prompted(service, "read", webhook_url=receiver.url)
    delivery_id = tried(service, job_id, 1, "pending")["id"]
    store = Store.at(service.redis_url)
    make_due(store, receiver.url)
    assert tried(service, job_id, 2, "pending")["next_attempt_at"] >= time.time() + 20

    replayed(service, job_id, delivery_id)

    assert tried(service, job_id, 3, "pending")["next_attempt_at"] <= time.time() + 10
    service.http.delete(f"/v1/jobs/{job_id}")


def test_an_event_is_not_sent_twice_at_once(service: Service, receiver: Web) -> None:
    """409 while it is under way."""
    over = []

    def answer(_: object) -> Reply:
        eventually(lambda: over, what="the test's word")
        return Reply()

    receiver.answer = answer
    job_id = prompted(service, "read", webhook_url=receiver.url)
    eventually(lambda: receiver.seen, what="the delivery")
    [delivery] = told(service, job_id)

    response = service.http.post(f"/v1/jobs/{job_id}/deliveries/{delivery['id']}/replay")
    over.append(True)

    assert (response.status_code, response.json()["code"]) == (409, "delivery_under_way")
    tried(service, job_id, 1, "delivered")
    assert len(receiver.seen) == 1


def test_an_expired_jobs_deliveries_are_told_and_not_sent_again(store: Store, tmp_path: Path) -> None:
    """Its end was an event too; but what would be sent again has been erased."""
    shop = keyed(store, tmp_path, acme={})
    job = new_job("acme", webhook_url="https://a.example/", webhook_events=("job.expired",), expires_in=0)
    store.jobs.submit(job, most_waiting=10)
    reap_until(store, lambda r: r.expired)

    response = shop.client("acme").get(f"/v1/jobs/{job.id}/deliveries")

    [delivery] = response.get_json()["data"]
    assert (delivery["event"], delivery["state"], delivery["attempts"]) == ("job.expired", "pending", [])
    refused = shop.client("acme").post(f"/v1/jobs/{job.id}/deliveries/{delivery['id']}/replay")
    assert (refused.status_code, refused.get_json()["code"]) == (410, "expired")


def test_a_deleted_job_tells_nothing_more(service: Service, receiver: Web) -> None:
    """404, for its deliveries too."""
    job_id = prompted(service, "read", webhook_url=receiver.url)
    delivery = tried(service, job_id, 1, "delivered")

    service.http.delete(f"/v1/jobs/{job_id}")

    assert service.http.get(f"/v1/jobs/{job_id}/deliveries").status_code == 404
    assert service.http.post(f"/v1/jobs/{job_id}/deliveries/{delivery['id']}/replay").status_code == 404
    assert not Store.at(service.redis_url).client.keys(f"*{job_id}*")
