"""Who is alive and how much waits: what workers say of themselves, and the length of each queue."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import cast

import redis

from phi4 import records
from phi4.job import INFER_QUEUES
from phi4.store.keys import WORKER_TTL_S, key

Backlog = dict[str, int]


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a worker says of itself every few seconds."""

    name: str
    queues: tuple[str, ...]
    stage: str  #: starting, loading, probing, ready, draining
    engine: str = ""
    model: str = ""
    slots: int = 0
    in_flight: int = 0

    @property
    def serves_engine(self) -> bool:
        """Whether it can run parts now: its engine answered its probe."""
        return self.stage == "ready" and any(q in INFER_QUEUES for q in self.queues)


class Workers:
    """The workers that were heard of lately."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def announce(self, info: WorkerInfo) -> None:
        """Say that a worker is alive; silence for some seconds takes it off the list."""
        self._client.set(key("worker", info.name), json.dumps(asdict(info)), ex=WORKER_TTL_S)
        self._client.sadd(key("workers"), info.name)
        self._client.expire(key("workers"), WORKER_TTL_S * 4)

    def leave(self, name: str) -> None:
        """Take a worker off the list."""
        self._client.srem(key("workers"), name)
        self._client.delete(key("worker", name))

    def alive(self) -> list[WorkerInfo]:
        """List the workers that are alive."""
        names = sorted(cast(set[str], self._client.smembers(key("workers"))))
        if not names:
            return []
        texts = cast(list[str | None], self._client.mget([key("worker", n) for n in names]))
        if gone := [n for n, text in zip(names, texts, strict=True) if text is None]:
            self._client.srem(key("workers"), *gone)
        return [_info(json.loads(text)) for text in texts if text]


def _info(fields: dict[str, object]) -> WorkerInfo:
    return records.read(WorkerInfo, {**fields, "queues": tuple(cast(list[str], fields["queues"]))})
