"""Faults of the API: killed between accepting a job and saying so."""

from __future__ import annotations

import signal
import time

import redis

from bench.faults.run import Fault, Scene
from phi4.store.keys import key


def _kill(scene: Scene) -> None:
    """Kill the API, all of its processes, as soon as the store has taken a job: its answer is still to be sent."""
    service = scene.service
    with redis.Redis.from_url(service.valkey.url, decode_responses=True) as server, server.pubsub() as changes:
        changes.subscribe(key("changes"))
        ends = time.monotonic() + 10
        while time.monotonic() < ends:
            message = changes.get_message(timeout=1)
            if message and message["type"] == "message" and '"queued"' in message["data"]:
                break
        pid = service.running["api"].pid
        service.signal("api", signal.SIGKILL, group=True)
    service.await_restart("api", pid)
    service.await_ready()


KILLED = Fault("the API killed between accepting and answering; clients repeat with their Idempotency-Key", _kill)
