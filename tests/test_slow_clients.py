"""Clients that stall while they send or take: they are cut off, and others are served meanwhile."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from phi4.settings import load
from tests.api_alone import api_alone
from tests.conftest import Service, eventually, png

PATIENCE_S = 1.0
UPLOADS = 4
HEAD = b"POST /v1/jobs HTTP/1.1\r\nHost: phi4\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
JOB = {"type": "ocr", "input": {"data": base64.b64encode(png()).decode()}}


@pytest.fixture(scope="module")
def api(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An API that waits a second for its clients, and receives four bodies at once."""
    limits = {"PHI4_CLIENT_SECONDS": str(PATIENCE_S), "PHI4_MAX_UPLOADS": str(UPLOADS)}
    with api_alone(valkey, tmp_path_factory.mktemp("api"), **limits) as service:
        yield service


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes what a test has opened."""
    with ExitStack() as stack:
        yield stack


def connected(api: Service, stack: ExitStack, sent: bytes) -> socket.socket:
    """A connection over which something was sent."""
    base = api.http.base_url
    client = stack.enter_context(socket.create_connection((base.host, base.port), timeout=20))
    client.sendall(sent)
    return client


def said(client: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    received = []
    while piece := client.recv(65_536):
        received.append(piece)
    return b"".join(received)


def test_a_body_that_stalls_is_cut_off(api: Service, stack: ExitStack) -> None:
    """The client is told that its request was no whole one, and the connection is closed."""
    stalled = connected(api, stack, HEAD + b"{")

    assert said(stalled).startswith(b"HTTP/1.1 400 ")


def test_a_body_that_trickles_is_cut_off_too(api: Service, stack: ExitStack) -> None:
    """What counts is the whole time, not the time between two bytes."""
    trickling = connected(api, stack, HEAD + b"{")

    def is_closed() -> bool:
        try:
            trickling.sendall(b" ")
        except OSError:
            return True
        return False

    eventually(is_closed, what="the end of the connection")


def test_headers_that_stall_are_cut_off(api: Service, stack: ExitStack) -> None:
    """There is nobody to answer yet: the connection is closed."""
    assert said(connected(api, stack, b"GET /livez HTTP/1.1\r\nHost: ph")) == b""


def test_no_more_bodies_are_received_than_set(api: Service, stack: ExitStack) -> None:
    """Past PHI4_MAX_UPLOADS 429 with Retry-After; everything without a body is served; then there is room again."""
    for _ in range(UPLOADS):
        connected(api, stack, HEAD + b"{")
    refused = eventually(lambda: (r := api.http.post("/v1/jobs", json=JOB)).status_code == 429 and r)

    assert refused.json()["code"] == "too_many_uploads"
    assert int(refused.headers["Retry-After"]) > 0
    assert [api.http.get(path).status_code for path in ("/livez", "/v1/jobs")] == [200, 200]
    eventually(lambda: api.http.post("/v1/jobs", json=JOB).status_code == 202, what="room for uploads")


def test_many_stalled_bodies_hold_up_nobody(api: Service, stack: ExitStack) -> None:
    """Three hundred at once: more than the API has threads."""
    assert load().max_waiting_requests + load().max_event_streams < 300
    for _ in range(300):
        connected(api, stack, HEAD + b"{")

    with httpx.Client(base_url=api.http.base_url, timeout=20) as other:
        assert other.get("/livez").status_code == 200
        eventually(lambda: other.post("/v1/jobs", json=JOB).status_code == 202, what="room for uploads")


def test_a_slow_but_steady_body_is_received(api: Service, stack: ExitStack) -> None:
    """A large body has as long as it needs at 16 kB/s, here 4 s, though the client's patience is one."""
    body = json.dumps(JOB | {"metadata": {"a": "b"}}).encode()
    body += b" " * (48_000 - len(body))
    client = connected(
        api, stack, HEAD.replace(b"1000", b"%d" % len(body)).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    )
    for at in range(0, len(body), 8_000):
        client.sendall(body[at : at + 8_000])
        time.sleep(0.3)

    assert said(client).startswith(b"HTTP/1.1 202 ")


def test_an_answer_that_is_not_taken_is_given_up(api: Service, stack: ExitStack) -> None:
    """A client that asks and asks and never reads loses its connection, not the server a thread."""
    asked = 2_000
    client = connected(api, stack, b"")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: phi4\r\n\r\n" * asked)
    time.sleep(8 * PATIENCE_S)

    try:
        received = said(client).count(b"HTTP/1.1 200")
    except ConnectionResetError:
        received = 0

    assert received < asked
    assert api.http.get("/livez").status_code == 200
