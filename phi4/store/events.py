"""The events of jobs: read again from any number on, followed as they happen, and text written while it is made.

Status, progress and the end are written by the scripts that change the job. Text is written by workers, and only for
jobs that somebody reads: every read leaves a mark of some seconds, which workers look for.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import redis

from phi4.errors import StoreUnavailable
from phi4.job import Status, Unit
from phi4.store.changes import Changes, Event, Inbox
from phi4.store.keys import key
from phi4.store.scripts import Scripts

Said = Literal["ok", "unread", "lost"]

#: Read at once when a reader is behind.
_BATCH = 500
#: How often a follower reads by itself: a message may have been lost, and its mark must not run out.
_LOOK_S = 5.0


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of the text of a part that runs."""

    part: Unit
    take: int  #: the engine may begin the same text anew within one attempt
    offset: int  #: bytes of UTF-8 that came before it in this take
    text: bytes  #: UTF-8, whole characters


class Events:
    """The event streams of all jobs."""

    def __init__(self, client: redis.Redis, scripts: Scripts, changes: Changes) -> None:
        self._client = client
        self._scripts = scripts
        self._changes = changes

    def read(self, job_id: str, after: int = 0, *, most: int = _BATCH) -> tuple[Status | None, list[Event]]:
        """Give the job's status and the events that follow number `after`, in order, and mark the job as read.

        The status is None when there is no such job.
        """
        status, *found = self._scripts.run("read_events", job_id, after, most)
        return Status(status) if status else None, [Event.parse(*fields) for fields in found]

    def follow(self, job_id: str, after: int = 0, *, tick: float = 1.0) -> Generator[Event | None, None, None]:
        """Give the events that follow number `after` as they happen, up to the end of the job's run.

        Gives None when `tick` seconds have passed without one, also while Redis is away. When the job is deleted or
        expires it ends without a last event.
        """
        with self._changes.listening(job_id, deltas=True) as inbox:
            yield from _Follower(self, job_id, after, inbox, tick)

    def say(self, pieces: Sequence[Piece]) -> list[Said]:
        """Write pieces of text: each is `ok`, `unread` (nobody reads the job now), or `lost` with its part."""
        arguments: list[str | bytes | int] = []
        for piece in pieces:
            part = piece.part
            arguments += [part.job.id, part.name, part.token, piece.take, piece.offset, piece.text]
        return cast(list[Said], self._scripts.run("say", *arguments)) if pieces else []

    def are_read(self, job_ids: Collection[str]) -> set[str]:
        """Pick out the jobs that somebody reads."""
        ids = sorted(job_ids)
        marks = cast(list[str | None], self._client.mget([key("reader", i) for i in ids])) if ids else []
        return {job_id for job_id, mark in zip(ids, marks, strict=True) if mark}


class _Follower:
    """One reader of one job: takes events as they are told, and reads when it is behind or has heard nothing."""

    def __init__(self, events: Events, job_id: str, after: int, inbox: Inbox, tick: float) -> None:
        self._events = events
        self._job_id = job_id
        self._after = after
        self._inbox = inbox
        self._tick = tick
        self._look_at = 0.0
        self._over = False

    def __iter__(self) -> Iterator[Event | None]:
        while not self._over:
            before = self._after
            for event in self._read() if time.monotonic() >= self._look_at else self._told():
                self._after = event.number
                yield event
                if event.is_last:
                    return
            if self._after == before:
                yield None

    def _read(self) -> list[Event]:
        self._look_at = time.monotonic() + _LOOK_S
        try:
            status, events = self._events.read(self._job_id, self._after)
        except StoreUnavailable:
            self._look_at = time.monotonic() + self._tick
            return []
        if len(events) == _BATCH:
            self._look_at = 0.0
        else:
            self._over = status is None or status.is_terminal
        return events

    def _told(self) -> Iterator[Event]:
        for event in self._inbox.take(self._tick):
            if event.number == self._after + 1:
                yield event
            elif event.number == 0 or event.number > self._after:
                self._look_at = 0.0  # one in between was missed, or there is something that is not kept
