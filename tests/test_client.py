"""The Python client, sync and async, against the running service."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from phi4.answers import Page, Result
from phi4.client import AsyncClient, Client, File, JobFailed, Phi4ApiError, verify_webhook
from tests.conftest import ROOT, Service, pdf, png
from tests.servers import Reply, web

TALK = ROOT / "examples" / "inputs" / "talk.mp3"


@pytest.fixture
def phi4(service: Service) -> Iterator[Client]:
    """A client of the running service."""
    with Client(str(service.http.base_url)) as client:
        yield client


def test_pages_questions_and_speech_come_as_typed_results(phi4: Client) -> None:
    """One call each, from a path or from bytes."""
    read = phi4.ocr(png(320, 200), format="text")
    answer = phi4.ask("Same?", png(), png())
    heard = phi4.transcribe(TALK)

    assert (read.text, read.pages[0]) == ("page 320x200", Page(1, "page 320x200", "", None))
    assert (answer.text, answer.data, answer.finish_reason) == ("2 images: Same?", None, "stop")
    assert heard.text.startswith("one two")
    assert heard.segments[0].start < heard.segments[0].end <= heard.duration


def test_a_job_can_be_made_now_and_fetched_later(phi4: Client) -> None:
    """Submit, look, wait, cancel, delete."""
    job = phi4.submit("ocr", png(), params={"prompt": "sleep 30"}, metadata={"order": "7"}, priority="low")

    assert job.raw["metadata"] == {"order": "7"}
    assert phi4.get(job.id).status in ("queued", "in_progress")
    phi4.cancel(job.id)
    assert phi4.wait(job.id).status == "cancelled"
    phi4.delete(job.id)
    with pytest.raises(Phi4ApiError) as caught:
        phi4.get(job.id)
    assert (caught.value.status, caught.value.code) == (404, "not_found")


def test_a_key_makes_one_job_however_often_it_is_sent(phi4: Client) -> None:
    """The caller's own key, as for work that is started again after a crash."""
    picture = png()
    made = {phi4.submit("ocr", picture, idempotency_key="client-test-key").id for _ in range(3)}

    assert len(made) == 1


def test_what_goes_wrong_says_why(phi4: Client) -> None:
    """A request that is refused, a job that fails, one that takes too long."""
    with pytest.raises(Phi4ApiError) as refused:
        phi4.ocr(png(), pages="x")
    with pytest.raises(JobFailed, match="failed on purpose") as failed:
        phi4.ask("fail", png())
    with pytest.raises(TimeoutError, match=r"has not ended after 0\.5 s"):
        phi4.ask("sleep 3", png(), timeout=0.5)

    assert (refused.value.status, refused.value.code) == (422, "invalid_request")
    assert refused.value.errors
    assert failed.value.job.status == "failed"


def test_a_stream_tells_a_job_from_beginning_to_end(phi4: Client) -> None:
    """Status, progress, result."""
    job = phi4.submit("ocr", pdf(2))

    events = list(phi4.stream(job.id))

    assert next(e["status"] for e in events if e["event"] == "status") == "queued"
    assert events[-1]["event"] == "result"
    assert phi4.get(job.id).status == "completed"
    with pytest.raises(Phi4ApiError):
        list(phi4.stream("job_unknown"))


def streamed(url: str) -> list[str]:
    """The names of a job's events."""
    with Client(url) as phi4:
        return [event["event"] for event in phi4.stream("job_1")]


def streamed_asynchronously(url: str) -> list[str]:
    """As `streamed`."""

    async def run() -> list[str]:
        async with AsyncClient(url) as phi4:
            return [event["event"] async for event in phi4.stream("job_1")]

    return asyncio.run(run())


STATUS = b'id: 1\nevent: status\ndata: {"status": "queued"}\n\n'
RESULT = b'id: 2\nevent: result\ndata: {"result": {}}\n\n'
ERROR = b'id: 2\nevent: error\ndata: {"error": {}}\n\n'
EVENTS = {"Content-Type": "text/event-stream"}
#: The server says that there is more, and hangs up.
BROKEN = EVENTS | {"Content-Length": "999"}
BUSY = Reply(503, headers={"Retry-After": "0"})


@pytest.mark.parametrize("stream", [streamed, streamed_asynchronously])
@pytest.mark.parametrize(
    ("replies", "events", "resumed"),
    [
        ([Reply(200, STATUS, EVENTS), BUSY, Reply(200, RESULT, EVENTS)], ["status", "result"], [None, "1", "1"]),
        ([Reply(200, STATUS, BROKEN), Reply(200, ERROR, BROKEN)], ["status", "error"], [None, "1"]),
        ([Reply(200, STATUS, BROKEN), Reply(204)], ["status"], [None, "1"]),
        ([Reply(200, RESULT, BROKEN)], ["result"], [None]),
    ],
    ids=["the process ended", "the connection broke", "nothing more to come", "broken after the result"],
)
def test_a_stream_ends_with_its_job(
    stream: Callable[[str], list[str]], replies: list[Reply], events: list[str], resumed: list[str | None]
) -> None:
    """However a connection ends: the next one goes on after the last event, until nothing more can come."""
    with web() as server:
        server.answer = lambda _: replies[len(server.seen) - 1]
        assert stream(server.url) == events
        assert [request.headers.get("last-event-id") for request in server.seen] == resumed


@pytest.mark.parametrize(
    ("reply", "error", "tries"),
    [(Reply(200, b"", EVENTS), httpx.RemoteProtocolError, 2), (BUSY, Phi4ApiError, 2), (Reply(404), Phi4ApiError, 1)],
    ids=["ends", "has no place", "knows no such job"],
)
def test_a_stream_that_does_not_come_is_an_error(reply: Reply, error: type[Exception], tries: int) -> None:
    """After all tries; at once when trying again cannot help."""
    with web() as server, Client(server.url, tries=2) as phi4:
        server.answer = lambda _: reply
        with pytest.raises(error):
            list(phi4.stream("job_1"))
        assert len(server.seen) == tries


def waited(url: str, timeout: float) -> str:
    """How the job is when the wait for it is over."""
    with Client(url) as phi4:
        return phi4.wait("job_1", timeout=timeout).status


def waited_asynchronously(url: str, timeout: float) -> str:
    """As `waited`."""

    async def run() -> str:
        async with AsyncClient(url) as phi4:
            return (await phi4.wait("job_1", timeout=timeout)).status

    return asyncio.run(run())


def job_that_is(status: str) -> Reply:
    """The API's answer."""
    return Reply(body=json.dumps({"id": "job_1", "type": "ocr", "status": status}).encode())


@pytest.mark.parametrize("wait", [waited, waited_asynchronously])
@pytest.mark.parametrize(("timeout", "most"), [(2.4, 6), (0.5, 2), (0, 1)])
def test_a_wait_asks_seldom_when_it_is_answered_at_once(
    wait: Callable[[str, float], str], timeout: float, most: int
) -> None:
    """The service has no place for it, or it is in its last second; it lasts as long as it was to."""
    with web() as server:
        server.answer = lambda _: job_that_is("queued")
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            wait(server.url, timeout)
        assert timeout <= time.monotonic() - began < timeout + 1
        assert len(server.seen) <= most


@pytest.mark.parametrize("wait", [waited, waited_asynchronously])
def test_a_wait_goes_on_at_once_when_there_is_news(wait: Callable[[str, float], str]) -> None:
    """A job that begins may end soon."""
    with web() as server:
        server.answer = lambda _: job_that_is(("queued", "in_progress", "completed")[len(server.seen) - 1])
        began = time.monotonic()
        assert wait(server.url, 30) == "completed"
        assert time.monotonic() - began < 0.4


BATCH: list[File] = [png(100, 100), png()[:50], ROOT / "missing.png", png(200, 100)]
OUTCOMES = ["page 100x100", JobFailed, FileNotFoundError, "page 200x100"]


def told(outcome: Result | Exception) -> object:
    """The words of a file's result, or the kind of what went wrong with it."""
    return type(outcome) if isinstance(outcome, Exception) else outcome.text


def test_a_batch_goes_on_past_bad_files(phi4: Client) -> None:
    """Each file comes back with its typed result or what went wrong, in order."""
    outcomes = [told(outcome) for _, outcome in phi4.batch("ocr", BATCH, in_flight=2)]

    assert outcomes == OUTCOMES


def test_an_asynchronous_batch_does_the_same(service: Service) -> None:
    """No more at once than wanted, and in order."""

    async def run() -> list[object]:
        async with AsyncClient(str(service.http.base_url)) as phi4:
            return [told(outcome) async for _, outcome in phi4.batch("ocr", BATCH, in_flight=2)]

    assert asyncio.run(run()) == OUTCOMES


def test_a_batch_that_nobody_listens_to_any_more_ends(service: Service) -> None:
    """The files that were not begun are left alone, sync and async."""
    files: list[File] = [png()] * 40
    slow = {"prompt": "sleep 0.5"}

    async def first() -> object:
        async with (
            AsyncClient(str(service.http.base_url)) as phi4,
            aclosing(phi4.batch("ocr", files, in_flight=2, **slow)) as batch,
        ):
            return await anext(batch)

    before = _jobs(service)
    with Client(str(service.http.base_url)) as phi4:
        for _, outcome in phi4.batch("ocr", files, in_flight=2, **slow):
            assert not isinstance(outcome, Exception)
            break
    asyncio.run(first())

    assert _jobs(service) - before < 20


def _jobs(service: Service) -> int:
    """How many jobs there are that sleep."""
    jobs = service.http.get("/v1/jobs", params={"type": "ocr", "limit": 100}).json()["data"]
    return sum(job["params"].get("prompt") == "sleep 0.5" for job in jobs)


def test_files_may_be_urls_and_fields_lists(phi4: Client) -> None:
    """The service fetches a URL, in its place among the others; a job without files is told what it lacks."""
    with web() as server:
        server.answer = lambda _: Reply(body=png(70, 50))
        read = phi4.ocr(png(60, 40), f"{server.url}/a.png", format="text")
    hooked = phi4.submit("ocr", png(), webhook_url="http://127.0.0.1:9/", webhook_events=["job.failed", "job.started"])
    with pytest.raises(Phi4ApiError) as empty:
        phi4.ocr()

    assert [page.text for page in read.pages] == ["page 60x40", "page 70x50"]
    assert hooked.status == "queued"
    assert [wrong["field"] for wrong in empty.value.errors] == ["input"]


def test_the_asynchronous_client_does_the_same(service: Service) -> None:
    """Many at once on one loop."""

    async def run() -> list[Any]:
        async with AsyncClient(str(service.http.base_url)) as phi4:
            texts = await asyncio.gather(*(phi4.ocr(png(100 + n, 100)) for n in range(4)))
            answer = await phi4.ask("Seen?", png())
            heard = await phi4.transcribe(TALK)
            job = await phi4.submit("ocr", png())
            events = [event["event"] async for event in phi4.stream(job.id)]
            ended = await phi4.wait(job.id)
            await phi4.cancel(job.id)
            await phi4.delete(job.id)
            with pytest.raises(Phi4ApiError):
                await phi4.get(job.id)
            return [[t.text for t in texts], answer.text, heard.text[:7], "status" in events, ended.status]

    assert asyncio.run(run()) == [
        [f"page {100 + n}x100" for n in range(4)],
        "1 images: Seen?",
        "one two",
        True,
        "completed",
    ]


@contextmanager
def unsteady(*answers: tuple[int, dict[str, str]]) -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives these answers (0: none, it hangs up), then a job; also gives what it was sent."""
    job = {"id": "job_1", "type": "ocr", "status": "queued", "code": "idempotency_in_flight"}
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for status, headers in [*answers, (202, {})]:
                connection, _ = server.accept()
                with connection:
                    request = b""
                    while b"--\r\n" not in request[-8:]:
                        request += connection.recv(65_536)
                    seen.append(request)
                    body = json.dumps(job).encode()
                    if status:
                        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close"]
                        lines += [f"{name}: {value}" for name, value in headers.items()]
                        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", seen
        thread.join(10)


def test_passing_trouble_is_retried_under_one_key() -> None:
    """A connection that breaks, 503, 429, and 409 while the first sending is still read: the same key each time."""
    in_flight = (409, {"Retry-After": "0"})
    with (
        unsteady((0, {}), in_flight, (503, {"Retry-After": "0"}), (429, {"Retry-After": "0"})) as (url, seen),
        Client(url) as phi4,
    ):
        assert phi4.submit("ocr", png()).id == "job_1"

    keys = {line for request in seen for line in request.split(b"\r\n") if line.lower().startswith(b"idempotency-key")}
    assert (len(seen), len(keys)) == (5, 1)


def test_a_service_that_stays_away_is_an_error() -> None:
    """After all tries, the connection's own."""
    with Client("http://127.0.0.1:1", tries=2) as phi4, pytest.raises(httpx.ConnectError):
        phi4.get("job_1")


def test_webhooks_are_verified() -> None:
    """A right signature gives the JSON; a wrong one, or another body, raises."""
    secret = "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"
    body, now = '{"event": "job.completed"}', datetime.now(UTC)
    headers = {
        "Webhook-Id": "evt_1",
        "Webhook-Timestamp": str(int(now.timestamp())),
        "Webhook-Signature": Webhook(secret).sign("evt_1", now, body),
    }

    assert verify_webhook(body, headers, secret) == {"event": "job.completed"}
    with pytest.raises(WebhookVerificationError):
        verify_webhook(body + " ", headers, secret)
