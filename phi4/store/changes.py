"""Tells threads of this process when something happens to a job, over one subscription."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis

from phi4.job import Job
from phi4.store.jobs import Jobs
from phi4.store.keys import key

#: A message can be lost with its connection, so a waiter also looks by itself this often.
_LOOK_AGAIN_S = 2.0
#: Events that a thread may be behind before it has to read them from Redis.
_INBOX = 500


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a job; `number` grows by one from event to event, and is 0 for what is not kept."""

    number: int
    name: str  #: status, progress, delta, result, error; not kept: deleted, expired, missed
    data: dict[str, Any]

    @classmethod
    def parse(cls, number: str | int, name: str, data: str) -> Event:
        """Read an event as scripts write it."""
        return cls(int(number), name, json.loads(data))

    @property
    def is_last(self) -> bool:
        """Whether the job's run ends with it."""
        return self.name in ("result", "error")


class Inbox:
    """The events of one job for one thread, the newest only when it falls behind."""

    def __init__(self, *, deltas: bool) -> None:
        self.deltas = deltas
        self._events: deque[Event] = deque(maxlen=_INBOX)
        self._some = threading.Event()

    def put(self, event: Event) -> None:
        """Add an event."""
        self._events.append(event)
        self._some.set()

    def take(self, seconds: float) -> Iterator[Event]:
        """Wait up to so long for events, and give those there are, oldest first."""
        self._some.wait(seconds)
        self._some.clear()
        while self._events:
            yield self._events.popleft()


class Changes:
    """Listens for jobs; the subscription starts with the first listener."""

    def __init__(self, client: redis.Redis, jobs: Jobs) -> None:
        self._client = client
        self._jobs = jobs
        self._inboxes: dict[str, set[Inbox]] = defaultdict(set)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def wait_until(self, job: Job, holds: Callable[[Job], bool], seconds: float) -> Job:
        """Give the job as soon as `holds` is true of it, or as it is after `seconds`."""
        ends = time.monotonic() + seconds
        with self.listening(job.id, deltas=False) as inbox:
            while True:
                job = self._jobs.get(job.id, job.owner)
                left = ends - time.monotonic()
                if holds(job) or left <= 0:
                    return job
                deque(inbox.take(min(left, _LOOK_AGAIN_S)), maxlen=0)

    @contextmanager
    def listening(self, job_id: str, *, deltas: bool) -> Iterator[Inbox]:
        """Collect a job's events for the time of the block; those right after its begin may be missed."""
        inbox = Inbox(deltas=deltas)
        with self._lock:
            self._inboxes[job_id].add(inbox)
            if self._thread is None:
                self._thread = threading.Thread(target=self._listen_for_ever, name="changes", daemon=True)
                self._thread.start()
        try:
            yield inbox
        finally:
            with self._lock:
                self._inboxes[job_id].discard(inbox)
                if not self._inboxes[job_id]:
                    del self._inboxes[job_id]

    def _listen_for_ever(self) -> None:
        while True:
            try:
                self._listen()
            except (redis.RedisError, OSError, ValueError):
                # ValueError: another thread closed the connection in the middle of a read.
                time.sleep(0.5)

    def _listen(self) -> None:
        with self._client.pubsub() as subscription:  # type: ignore[no-untyped-call]
            subscription.subscribe(key("changes"))
            while True:
                message = subscription.get_message(timeout=1.0)
                if message is None:
                    continue
                if message["type"] == "subscribe":
                    self._say_missed()
                else:
                    self._tell(*str(message["data"]).split(" ", 3))

    def _say_missed(self) -> None:
        """Tell everybody that events may have passed before this connection listened."""
        with self._lock:
            for inboxes in self._inboxes.values():
                for inbox in inboxes:
                    inbox.put(Event(0, "missed", {}))

    def _tell(self, job_id: str, number: str, name: str, data: str) -> None:
        with self._lock:
            inboxes = [i for i in self._inboxes.get(job_id, ()) if i.deltas or name != "delta"]
        if inboxes:
            event = Event.parse(number, name, data)
            for inbox in inboxes:
                inbox.put(event)
