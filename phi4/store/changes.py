"""Tells threads of this process when a job changes, over one subscription."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import redis

from phi4.job import Job
from phi4.store.jobs import Jobs
from phi4.store.keys import key

#: A message can be lost with its connection, so a waiter also looks by itself this often.
_LOOK_AGAIN_S = 2.0


class Changes:
    """Waits for jobs; the subscription starts with the first waiter."""

    def __init__(self, client: redis.Redis, jobs: Jobs) -> None:
        self._client = client
        self._jobs = jobs
        self._waiters: dict[str, set[threading.Event]] = defaultdict(set)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def wait_until(self, job: Job, holds: Callable[[Job], bool], seconds: float) -> Job:
        """Give the job as soon as `holds` is true of it, or as it is after `seconds`."""
        ends = time.monotonic() + seconds
        with self._listening(job.id) as changed:
            while True:
                job = self._jobs.get(job.id, job.owner)
                left = ends - time.monotonic()
                if holds(job) or left <= 0:
                    return job
                changed.wait(min(left, _LOOK_AGAIN_S))
                changed.clear()

    @contextmanager
    def _listening(self, job_id: str) -> Iterator[threading.Event]:
        event = threading.Event()
        with self._lock:
            self._waiters[job_id].add(event)
            if self._thread is None:
                self._thread = threading.Thread(target=self._listen_for_ever, name="changes", daemon=True)
                self._thread.start()
        try:
            yield event
        finally:
            with self._lock:
                self._waiters[job_id].discard(event)
                if not self._waiters[job_id]:
                    del self._waiters[job_id]

    def _listen_for_ever(self) -> None:
        while True:
            try:
                self._listen()
            except (redis.RedisError, OSError, ValueError):
                # ValueError: another thread closed the connection in the middle of a read.
                time.sleep(0.5)

    def _listen(self) -> None:
        with self._client.pubsub(ignore_subscribe_messages=True) as subscription:  # type: ignore[no-untyped-call]
            subscription.subscribe(key("changes"))
            while True:
                message = subscription.get_message(timeout=1.0)
                if message is not None:
                    self._tell(str(message["data"]).split(" ")[0])

    def _tell(self, job_id: str) -> None:
        with self._lock:
            for event in self._waiters.get(job_id, ()):
                event.set()
