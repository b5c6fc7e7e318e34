"""Reads event streams of a running service, as a client that knows Server-Sent Events does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from httpx_sse import EventSource, ServerSentEvent

from tests.conftest import Service


@contextmanager
def stream(service: Service, job_id: str, after: int | None = None) -> Iterator[Iterator[ServerSentEvent]]:
    """Open the stream of a job, after an event when one is given."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    with (
        httpx.Client(base_url=service.http.base_url, timeout=30) as client,
        client.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as response,
    ):
        assert response.status_code == 200, response.read()
        yield EventSource(response).iter_sse()


def all_events(service: Service, job_id: str, after: int | None = None) -> list[ServerSentEvent]:
    """Read a stream to its end."""
    with stream(service, job_id, after) as events:
        return list(events)


def told(events: list[ServerSentEvent]) -> list[Any]:
    """Each event in a word: the status, how much of how much, or its name."""
    return [_word(event.event, event.json()) for event in events]


def _word(name: str, data: dict[str, Any]) -> Any:
    match name:
        case "status":
            return data["status"]
        case "progress":
            return (data["completed"], data["total"])
        case "error":
            return f"error {data['error']['code']}"
    return name


def text_of(events: list[ServerSentEvent], part: int = 0) -> str:
    """The text of a part as a reader puts it together: offset 0 begins it anew, and no piece may be missing."""
    text = b""
    for data in (event.json() for event in events if event.event == "delta"):
        if data["part"] == part:
            text = b"" if data["offset"] == 0 else text
            assert data["offset"] == len(text), "a piece is missing or was told twice"
            text += data["text"].encode()
    return text.decode()
