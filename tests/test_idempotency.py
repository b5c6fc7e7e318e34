"""`Idempotency-Key`: a request that is sent again makes no second job."""

from __future__ import annotations

import base64
import json
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from phi4.store import Store
from phi4.store.keys import key
from tests.conftest import Service, eventually, png

BODY: dict[str, Any] = {"type": "ocr", "input": {"data": base64.b64encode(png()).decode()}, "metadata": {"a": "1"}}


@pytest.fixture
def name() -> str:
    """A key that no other test uses."""
    return uuid.uuid4().hex


def post(service: Service, name: str, body: Any = None, **headers: str) -> httpx.Response:
    """Submit with a key."""
    return service.http.post(
        "/v1/jobs", json=BODY if body is None else body, headers={"Idempotency-Key": name} | headers
    )


def test_the_same_request_is_the_same_job(service: Service, name: str) -> None:
    """The second answer says so, and shows the job as it is by then."""
    first = post(service, name)
    service.ended(first.json()["id"])

    second = post(service, name, Prefer="wait=5")

    assert (first.status_code, second.status_code) == (202, 200)
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert second.json()["id"] == first.json()["id"]
    assert second.headers["Location"] == first.headers["Location"]
    assert second.json()["status"] == "completed"


def test_another_way_to_write_it_is_the_same_request(service: Service, name: str) -> None:
    """What counts is what was asked for: multipart or JSON, defaults written out or not."""
    file = {"data": base64.b64encode(png()).decode(), "filename": "a.png"}
    first = post(service, name, BODY | {"input": file, "params": {"detail": "auto"}, "priority": "normal"})

    second = service.http.post(
        "/v1/jobs",
        data={"type": "ocr", "metadata": '{"a": "1"}'},
        files={"file": ("a.png", png())},
        headers={"Idempotency-Key": name},
    )

    assert (second.json()["id"], second.headers["Idempotent-Replayed"]) == (first.json()["id"], "true")


@pytest.mark.parametrize(
    "other",
    [
        {"type": "vqa", "params": {"question": "?"}},
        {"metadata": {"a": "2"}},
        {"params": {"format": "text"}},
        {"priority": "low"},
        {"cancel_after": 60},
        {"expires_in": 3_600},
        {"webhook_url": "http://127.0.0.1:1/"},
        {"input": {"data": base64.b64encode(png(9, 9)).decode()}},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_request_under_the_same_key_is_refused(service: Service, name: str, other: dict[str, Any]) -> None:
    """422: a key belongs to what was asked first."""
    first = post(service, name)

    second = post(service, name, BODY | other)

    assert (second.status_code, second.json()["code"]) == (422, "idempotency_mismatch")
    assert post(service, name).json()["id"] == first.json()["id"]


def test_another_key_is_another_job(service: Service, name: str) -> None:
    """The same body under two keys, or under none, is two jobs."""
    ids = {post(service, name).json()["id"], post(service, name + "2").json()["id"]}
    ids |= {service.http.post("/v1/jobs", json=BODY).json()["id"] for _ in range(2)}

    assert len(ids) == 4


def test_a_refused_request_does_not_use_up_its_key(service: Service, name: str) -> None:
    """A mistake can be corrected under the same key."""
    refused = post(service, name, BODY | {"priority": "urgent"})

    accepted = post(service, name)

    assert (refused.status_code, accepted.status_code) == (422, 202)


def test_a_deleted_job_gives_its_key_back(service: Service, name: str) -> None:
    """Nothing is left of it, so the key is new."""
    first = post(service, name).json()["id"]
    service.http.delete(f"/v1/jobs/{first}")

    second = post(service, name)

    assert (second.status_code, "Idempotent-Replayed" in second.headers) == (202, False)
    assert second.json()["id"] != first


def test_a_key_is_taken_while_its_first_request_uploads(service: Service, name: str) -> None:
    """409 with Retry-After; afterwards the key belongs to the first request's job."""
    with uploading(service, name) as connection:
        busy = post(service, name)
        connection.sendall(BYTES[-10:])
        first = answer_of(connection)

    assert (busy.status_code, busy.json()["code"]) == (409, "idempotency_in_flight")
    assert int(busy.headers["Retry-After"]) > 0
    assert post(service, name).json()["id"] == first["id"]


def test_a_key_is_free_again_when_its_first_request_breaks_off(service: Service, name: str) -> None:
    """The reservation dies with the request that held it."""
    with uploading(service, name):
        pass

    response = eventually(lambda: (r := post(service, name)).status_code == 202 and r, what="a free key")

    assert "Idempotent-Replayed" not in response.headers


BYTES = json.dumps(BODY).encode()


@contextmanager
def uploading(service: Service, name: str) -> Iterator[socket.socket]:
    """Send all of a request but its last ten bytes, and wait until the API has begun to read it."""
    url = service.http.base_url
    head = (
        f"POST /v1/jobs HTTP/1.1\r\nHost: {url.host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(BYTES)}\r\nIdempotency-Key: {name}\r\n\r\n"
    )
    store = Store.at(service.redis_url)

    def is_reserved() -> bool:
        values = [store.client.get(k) for k in store.client.keys(key("idempotency", "*", "*"))]
        return any(str(value).startswith("pending ") for value in values)

    with socket.create_connection((url.host, url.port or 80), timeout=20) as connection:
        connection.sendall(head.encode() + BYTES[:-10])
        eventually(is_reserved, what="the reservation")
        store.client.close()
        yield connection


def answer_of(connection: socket.socket) -> Any:
    """Read a JSON answer off a connection."""
    with connection.makefile("rb") as file:
        assert b" 202 " in file.readline()
        length = 0
        while (line := file.readline()) != b"\r\n":
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        return json.loads(file.read(length))
