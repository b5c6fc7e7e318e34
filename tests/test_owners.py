"""A job belongs to an owner: with another's key it is as if it were not there, on every route."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook
from werkzeug.test import TestResponse

from phi4.store import Store
from tests.conftest import Service, eventually
from tests.keyed_app import JOB, Keyed, concrete, keyed
from tests.making_jobs import MOMENTS, new_job, raw, take_to
from tests.scripted_jobs import accepted
from tests.servers import web


@pytest.fixture
def shop(store: Store, tmp_path: Path) -> Keyed:
    """An application with keys of two owners, a second one of the first, and an admin's."""
    return keyed(store, tmp_path, acme={}, rival={}, replaced={"owner": "acme"}, root={"admin": True})


def submitted(shop: Keyed, name: str, **more: Any) -> str:
    """Submit a job with a key; gives its id."""
    answer = shop.client(name).post("/v1/jobs", json=JOB, **more)
    assert answer.status_code == 202, answer.text
    return str(answer.get_json()["id"])


def told(answer: TestResponse, job_id: str) -> tuple[int, dict[str, Any]]:
    """What an answer says, but for the ids of the job and of the request."""
    problem = json.loads(answer.text.replace(job_id, "ID"))
    problem.pop("request_id", None)
    return answer.status_code, problem


def in_store(shop: Keyed) -> dict[str, Any]:
    """All that is kept of jobs."""
    return {name: raw(shop.store).dump(name) for name in raw(shop.store).keys("phi4:*") if "api_key" not in name}


def file_and_batch(shop: Keyed) -> dict[str, str]:
    """Upload a file of acme's, and begin a batch of it."""
    client = shop.client("acme")
    file = client.post("/v1/files", data={"purpose": "batch", "file": (io.BytesIO(b"x"), "a.jsonl")}).get_json()["id"]
    wanted = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    return {"file_id": file, "batch_id": client.post("/v1/batches", json=wanted).get_json()["id"]}


def test_files_and_batches_are_their_owners(shop: Keyed) -> None:
    """Lists show none of others', and nobody begins a batch of another's file."""
    ids = file_and_batch(shop)
    rival = shop.client("rival")
    wanted = {"input_file_id": ids["file_id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}

    assert [rival.get(f"/v1/{kind}").get_json()["data"] for kind in ("files", "batches")] == [[], []]
    assert rival.post("/v1/batches", json=wanted).get_json()["error"]["param"] == "input_file_id"
    assert shop.client("root").get(f"/v1/batches/{ids['batch_id']}").status_code == 200


@pytest.mark.parametrize("moment", ["queued", "running", "completed", "cancelled"])
def test_every_route_hides_the_jobs_of_others(shop: Keyed, moment: str) -> None:
    """404, in the very words for a job that does not exist, and nothing has changed; whatever routes will be added."""
    events = ("job.started", "job.completed", "job.cancelled")
    job = new_job("acme", webhook_url="https://example.com/", webhook_events=events)
    shop.store.jobs.submit(job, most_waiting=10)
    assert moment in MOMENTS
    take_to(shop.store, moment, job)
    delivery = next((d.hook.id for d in shop.store.hooks.deliveries(job.id)), "evt_none")
    assert (delivery == "evt_none") == (moment == "queued")
    ids = {"job_id": job.id, **file_and_batch(shop)}
    kept, rival, walked = in_store(shop), shop.client("rival"), 0

    for rule in shop.app.url_map.iter_rules():
        if not rule.arguments or rule.endpoint.startswith(("docs.", "console.")) or rule.arguments == {"model_id"}:
            continue  # a model is nobody's
        (name,) = rule.arguments - {"delivery_id"}
        assert name in ids, "a new kind of id: make one of acme's for this walk"
        for method in (rule.methods or set()) - {"OPTIONS", "HEAD"}:
            foreign = rival.open(concrete(rule.rule, **{name: ids[name]}, delivery_id=delivery), method=method)
            unknown = rival.open(concrete(rule.rule, **{name: "id_none"}, delivery_id=delivery), method=method)
            assert told(foreign, ids[name]) == told(unknown, "id_none")
            assert foreign.status_code == 404, (method, rule.rule)
            walked += 1

    assert walked >= 11
    assert in_store(shop) == kept


def test_lists_show_the_callers_jobs_only(shop: Keyed) -> None:
    """Also when a page begins after another's job."""
    mine, theirs = [submitted(shop, "acme") for _ in range(2)], submitted(shop, "rival")

    def listed(name: str, **arguments: str) -> list[str]:
        return [j["id"] for j in shop.client(name).get("/v1/jobs", query_string=arguments).get_json()["data"]]

    assert listed("acme") == mine[::-1]
    assert listed("rival") == [theirs]
    assert listed("acme", after=theirs) == mine[::-1]
    assert listed("acme", owner="acme") == mine[::-1]
    assert shop.client("acme").get("/v1/jobs?owner=rival").status_code == 403
    assert shop.client("acme").get("/v1/jobs?owner=nobody").status_code == 403


def test_jobs_stay_with_their_owner_when_a_key_is_replaced(shop: Keyed) -> None:
    """A second key of the same owner sees, cancels and deletes what the first one made."""
    job_id = submitted(shop, "acme")
    client = shop.client("replaced")

    assert client.get(f"/v1/jobs/{job_id}").status_code == 200
    assert client.post(f"/v1/jobs/{job_id}/cancel").get_json()["status"] == "cancelled"
    assert client.delete(f"/v1/jobs/{job_id}").status_code == 200


def test_an_admin_sees_and_stops_everybodys_jobs(shop: Keyed) -> None:
    """Lists are of one owner at a time; its own without a name."""
    job_id = submitted(shop, "acme")
    root = shop.client("root")

    assert root.get("/v1/jobs").get_json()["data"] == []
    assert [j["id"] for j in root.get("/v1/jobs?owner=acme").get_json()["data"]] == [job_id]
    assert root.get(f"/v1/jobs/{job_id}").status_code == 200
    assert root.post(f"/v1/jobs/{job_id}/cancel").get_json()["status"] == "cancelled"
    assert root.delete(f"/v1/jobs/{job_id}").status_code == 200


@pytest.mark.parametrize("route", ["/v1/files", "/v1/batches"])
def test_an_admin_lists_any_owners_files_and_batches(shop: Keyed, route: str) -> None:
    """By the owner's name; others only their own."""
    line = b'{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": []}}'
    acme = shop.client("acme")
    file = acme.post("/v1/files", data={"purpose": "batch", "file": (io.BytesIO(line), "a.jsonl")}).get_json()["id"]
    asked = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch = acme.post("/v1/batches", json=asked).get_json()["id"]

    listed = shop.client("root").get(f"{route}?owner=acme").get_json()["data"]
    assert [one["id"] for one in listed] == [file if route == "/v1/files" else batch]
    assert shop.client("root").get(route).get_json()["data"] == []
    assert acme.get(f"{route}?owner=rival").status_code == 403


def test_an_idempotency_key_is_its_owners(shop: Keyed) -> None:
    """Another owner who uses the same one gets a job of its own, and a replaced key the first one's."""
    same = {"headers": {"Idempotency-Key": "order-1"}}

    first = submitted(shop, "acme", **same)
    assert submitted(shop, "rival", **same) != first
    assert submitted(shop, "replaced", **same) == first
    assert submitted(shop, "acme", **same) == first


def test_an_idempotency_key_outlives_a_key_with_other_limits(store: Store, tmp_path: Path) -> None:
    """What a key allows is not part of what was asked for."""
    shop = keyed(store, tmp_path, old={"owner": "acme"}, new={"owner": "acme", "in_flight_pages": 3})
    same = {"headers": {"Idempotency-Key": "order-1"}}

    assert submitted(shop, "old", **same) == submitted(shop, "new", **same)


@pytest.mark.parametrize(
    "job_id",
    [
        "..",
        "../../etc/passwd",
        "%2e%2e%2f%2e%2e",
        "..%5c..",
        "job_%00",
        "job_01*",
        "job_01%0d%0aX-Evil:%20yes",
        "phi4:api_keys",
        "%F0%9F%92%A9",
        "%ff%fe",
        "a" * 4_000,
        "{}",
        "{0.__class__}",
    ],
)
def test_an_id_that_is_none_finds_nothing(shop: Keyed, job_id: str) -> None:
    """404, and no header of the caller's making."""
    client = shop.client("acme")
    for path in (f"/v1/jobs/{job_id}", f"/v1/jobs/{job_id}/result", f"/v1/jobs/{job_id}/events"):
        answer = client.get(path)
        assert (answer.status_code, answer.get_json()["code"]) == (404, "not_found")
        assert "X-Evil" not in answer.headers
    assert client.delete(f"/v1/jobs/{job_id}").status_code == 404


@pytest.mark.parametrize("given", ["a b", "a\tb", "a;b", "x" * 65, "é", '"><script>', ""])
def test_a_request_id_that_could_do_harm_is_replaced(shop: Keyed, given: str) -> None:
    """It comes back in a header and in every problem, and stands in logs."""
    answer = shop.client("acme").get("/v1/jobs/none", headers={"X-Request-Id": given})

    assert answer.headers["X-Request-Id"].startswith("req_")
    assert answer.get_json()["request_id"] == answer.headers["X-Request-Id"]


@pytest.mark.parametrize("name", ['a"; filename="b', "a\r\nX-Evil: yes", "../../a.png", "<script>.png", "\u202egnp.a"])
def test_a_file_name_is_shown_back_and_nothing_more(shop: Keyed, name: str) -> None:
    """It is no path and stands in no header."""
    answer = shop.client("acme").post("/v1/jobs", json=JOB | {"input": JOB["input"] | {"filename": name}})

    assert answer.status_code == 202
    assert answer.get_json()["input"][0]["filename"] == name
    assert "X-Evil" not in answer.headers
    assert not [value for value in answer.headers.values() if name in value]


# -- webhooks


def test_owners_without_a_secret_get_no_webhooks(shop: Keyed) -> None:
    """They are not signed with another's; 422 says how to make one."""
    job = JOB | {"webhook_url": "https://example.com/"}

    refused = shop.client("acme").post("/v1/jobs", json=job)

    assert refused.status_code == 422
    assert "phi4 keys webhook-secret" in refused.get_json()["detail"]
    shop.store.access.webhook_secret("acme")
    assert shop.client("acme").post("/v1/jobs", json=job).status_code == 202
    assert shop.client("rival").post("/v1/jobs", json=job).status_code == 422


def test_webhooks_are_signed_with_their_owners_secrets(own_service: Any) -> None:
    """With the new one and, for a day after a rotation, with the one before; never with the service's own."""
    service: Service = own_service()
    access = Store.at(service.redis_url).access
    token, _ = access.create("acme", "acme")
    before = access.webhook_secret("acme")
    secrets = [access.rotate_webhook_secret("acme"), before]
    eventually(lambda: service.http.get("/v1/jobs").status_code == 401, what="the key's being known")
    service.http.headers["Authorization"] = f"Bearer {token}"

    with web() as receiver:
        accepted(service.submit(webhook_url=receiver.url))
        [request] = eventually(lambda: receiver.seen, what="the webhook")

    assert len(request.headers["webhook-signature"].split()) == 2
    for secret in secrets:
        assert Webhook(secret).verify(request.body, request.headers)["event"] == "job.completed"
