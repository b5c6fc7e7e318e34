"""Clients that send or read slowly, or not at all, keep no threads from the others."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.api_alone import answers, api_alone
from tests.conftest import ROOT, Service, eventually, make_service, png
from tests.scripted_jobs import accepted

#: More than the API under test has threads.
CROWD = 60
POST = b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
BUNDLE = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.fixture(scope="module")
def small(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An API with 20 threads, which waits for four slow clients, each for a second or at 1 MB/s."""
    few = {
        "PHI4_MAX_WAITING_REQUESTS": "0",
        "PHI4_MAX_EVENT_STREAMS": "0",
        "PHI4_MAX_SLOW_CLIENTS": "4",
        "PHI4_CLIENT_PATIENCE_SECONDS": "1",
        "PHI4_CLIENT_BYTES_PER_SECOND": "1000000",
    }
    with api_alone(valkey, tmp_path_factory.mktemp("api"), **few) as service:
        yield service


@contextmanager
def connected(service: Service, *first: bytes, count: int = 1, buffer: int = 4_096) -> Iterator[list[socket.socket]]:
    """Connections on which something was sent, and from which the system reads not much more than `buffer` ahead."""
    url = service.http.base_url
    with ExitStack() as stack:
        made = []
        for _ in range(count):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            sock.settimeout(20)
            sock.connect((url.host, url.port))
            for piece in first:
                sock.sendall(piece)
            made.append(sock)
        yield made


def received(sock: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    pieces = []
    try:
        while piece := sock.recv(65_536):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def is_served(service: Service) -> bool:
    """Whether polls, and jobs that come in one go, are answered as ever."""
    with httpx.Client(base_url=service.http.base_url, timeout=15) as client:
        codes = [client.get(path).status_code for path in ("/livez", "/v1/jobs")]
        job = client.post("/v1/jobs", data={"type": "ocr"}, files={"file": png()})
        codes += [job.status_code, client.delete(job.headers.get("Location", "/none")).status_code]
    return codes == [200, 200, 202, 200]


@pytest.mark.parametrize(
    "sent",
    [
        (),  # not a word
        (b"G",),
        (b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Endless: ",),
        (POST,),
        (POST, b"{"),
        (b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",),
        (b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",),  # answered, but not closed there
        (BUNDLE * 3,),  # far more than the system buffers, and nobody reads it
    ],
    ids=["nothing", "a letter", "head", "no body", "body", "chunk", "no end", "unread answers"],
)
def test_a_crowd_that_stalls_holds_up_nobody(small: Service, sent: tuple[bytes, ...]) -> None:
    """More of them than there are threads, at every point of a request and its answer."""
    with connected(small, *sent, count=CROWD):
        for _ in range(3):
            assert is_served(small)
    assert "Traceback" not in small.output("api")


def test_a_body_that_stalls_is_told_so(small: Service) -> None:
    """408, with Retry-After, as a problem like all others; the connection ends."""
    with connected(small, POST, b'{"type"') as [sock]:
        answer = received(sock)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in answer
    assert b"Retry-After: " in answer
    assert b'"code": "request_timeout"' in answer


def test_a_body_that_drips_is_told_so_too(small: Service) -> None:
    """What counts is how much comes, not that something comes."""
    with connected(small, POST) as [sock]:
        sock.settimeout(0.05)
        answer = b""
        for _ in range(400):
            try:
                sock.sendall(b" ")
                answer += sock.recv(4_096)
            except TimeoutError:
                continue
            except ConnectionError:
                break
            if answer:
                break

    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_slow_head_is_cut_off(small: Service) -> None:
    """Nothing was asked yet, so nothing is answered."""
    with connected(small, b"GET /livez HTTP/1.1\r\nX: y") as [sock]:
        assert received(sock) == b""


def test_an_answer_that_is_not_read_is_cut_off(small: Service) -> None:
    """What the system had buffered comes, the rest never."""
    whole = int(small.http.head("/docs/swagger-ui-bundle.js").headers["Content-Length"])

    with connected(small, BUNDLE, buffer=65_536) as [sock]:
        assert sock.recv(1, socket.MSG_PEEK) == b"H"
        time.sleep(2.5)  # longer than anybody is waited for
        assert 0 < len(received(sock)) < whole


def test_a_large_upload_may_take_its_time(small: Service) -> None:
    """Longer than the patience for a client that sends nothing, as long as it goes on at the least rate."""
    with connected(small, POST.replace(b"100000", b"3000002"), b'"') as [sock]:
        for _ in range(10):
            sock.settimeout(20)
            sock.sendall(b"x" * 300_000)
            sock.settimeout(0.15)
            with pytest.raises(TimeoutError):
                sock.recv(1)
        sock.settimeout(20)
        sock.sendall(b'"')
        assert sock.recv(65_536).startswith(b"HTTP/1.1 400 "), "read to its end: a string is no job"


def test_a_large_answer_is_whole_for_a_client_that_reads(small: Service) -> None:
    """Many times what is buffered, read a little at a time."""
    with small.http.stream("GET", "/docs/swagger-ui-bundle.js") as answer:
        assert sum(map(len, answer.iter_raw(10_000))) == int(answer.headers["Content-Length"]) > 1_000_000


def test_a_body_with_nonsense_for_chunks_is_malformed(small: Service) -> None:
    """400; it is no fault of the server's."""
    head = POST.replace(b"Content-Length: 100000", b"Transfer-Encoding: chunked")
    with connected(small, head, b"zz\r\n{}\r\n0\r\n\r\n") as [sock]:
        answer = received(sock)

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"code": "malformed_request"' in answer


def test_a_refusal_reaches_a_client_that_is_still_sending(small: Service) -> None:
    """An answer given before the body was read is not lost with the connection."""
    for path in ("/v1/nothing", "/livez"):
        answer = small.http.post(path, content=b"x" * 5_000_000)
        assert answer.status_code in (404, 405)


def test_more_connections_than_there_is_room_for_push_out_idle_ones(valkey: str, tmp_path: Path) -> None:
    """With as few open files as the system allows, the service lives and answers new clients."""
    service = make_service(valkey.removesuffix("/0") + "/14", tmp_path, PHI4_MAX_EVENT_STREAMS="0")
    limited = ["bash", "-c", 'ulimit -n 500 && exec "$0" -m api', sys.executable]
    with (tmp_path / "api.log").open("wb") as log:
        service.processes["api"] = subprocess.Popen(limited, env=service.env, cwd=ROOT, stdout=log, stderr=log)
    try:
        eventually(lambda: answers(service), what="the API's first answer")
        with connected(service, count=400):
            accepted(service.submit())
            assert is_served(service)
    finally:
        service.http.close()
        assert service.stop_all() == {"api": 0}
    assert "Traceback" not in service.output("api")
    assert "booting" not in service.output("api").lower()
