"""Batches: many requests in one file, and how far each of them has come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import redis

from phi4 import records
from phi4.errors import NotFound
from phi4.store.indexes import newest, tidy
from phi4.store.keys import MAX_EXPIRES_S, SHARED_TTL_S, key

#: What a line has come to: a job that runs, one that completed, one that failed, or an answer without a job (JSON).
RUNS, COMPLETED, FAILED, REFUSED = "=", "+", "-", "!"


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch; times are Unix milliseconds of Redis' clock, 0 for "not yet"."""

    id: str
    owner: str
    api_key: str  #: which key of the owner made it, or ''
    endpoint: str
    input_file: str
    metadata: str  #: JSON
    created_ms: int
    ends_ms: int
    files_kept_s: int
    status: str = "validating"
    errors: str = ""  #: JSON
    total: int = 0
    completed: int = 0
    failed: int = 0
    output_file: str = ""
    error_file: str = ""
    in_progress_ms: int = 0
    cancelling_ms: int = 0
    finalizing_ms: int = 0
    completed_ms: int = 0
    failed_ms: int = 0
    expired_ms: int = 0
    cancelled_ms: int = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing of it will change."""
        return self.status in ("failed", "completed", "expired", "cancelled")


class Batches:
    """The batches of every owner."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def add(self, batch: Batch) -> None:
        """Note a new batch, which is open until `close`."""
        ends_ms = batch.created_ms + MAX_EXPIRES_S * 1000
        with self._client.pipeline() as step:
            step.hset(key("batch", batch.id), mapping=cast(Any, asdict(batch)))
            step.pexpireat(key("batch", batch.id), ends_ms)
            step.zadd(key("batches", batch.owner), {batch.id: 0})
            step.expire(key("batches", batch.owner), SHARED_TTL_S)
            step.zadd(key("open_batches"), {batch.id: batch.created_ms})
            step.expire(key("open_batches"), SHARED_TTL_S)
            step.execute()
        tidy(self._client, key("batches", batch.owner), "batch")

    def find(self, batch_id: str) -> Batch | None:
        """Read one batch, whoever owns it."""
        return _read(cast(dict[str, str], self._client.hgetall(key("batch", batch_id))))

    def get(self, batch_id: str, owner: str | None) -> Batch:
        """Read one batch of `owner` (None: of anybody). Raises `NotFound`, also for another owner's."""
        batch = self.find(batch_id)
        if batch is None or owner not in (None, batch.owner):
            raise NotFound(f"There is no batch {batch_id[:100]!r}.")
        return batch

    def newest(self, owner: str) -> list[Batch]:
        """List an owner's batches, newest first."""
        return newest(self._client, key("batches", owner), "batch", _read)

    def update(self, batch: Batch, **fields: str | int) -> Batch:
        """Change fields of a record; only who holds the lock of batches does, but for `cancel`."""
        self._client.hset(key("batch", batch.id), mapping=cast(Any, fields))
        return self.find(batch.id) or batch

    def cancel(self, batch: Batch, now_ms: int) -> Batch:
        """Ask for the end of a batch; asking again changes nothing."""
        if not batch.cancelling_ms:
            self._client.hset(key("batch", batch.id), "cancelling_ms", str(now_ms))
        return self.find(batch.id) or batch

    def open(self) -> Sequence[str]:
        """List the batches that are not over, oldest first."""
        return cast(list[str], self._client.zrange(key("open_batches"), 0, -1))

    def reads(self, file_id: str) -> bool:
        """Tell whether a batch that is not over has this input file, which its owner may have erased meanwhile."""
        asked = self._client.pipeline(transaction=False)
        for batch_id in self.open():
            asked.hget(key("batch", batch_id), "input_file")
        return file_id in asked.execute()

    def close(self, batch: Batch) -> None:
        """Take a batch that is over off the list, and forget its lines."""
        self._client.zrem(key("open_batches"), batch.id)
        self._client.delete(key("batch_lines", batch.id))

    def lines(self, batch: Batch) -> dict[int, str]:
        """What became of each line so far: a mark (`RUNS`, …), then the job's id or the answer."""
        noted = cast(dict[str, str], self._client.hgetall(key("batch_lines", batch.id)))
        return {int(number): text for number, text in noted.items()}

    def note(self, batch: Batch, noted: Mapping[int, str]) -> None:
        """Note what lines have come to, in one step."""
        if noted:
            asked = self._client.pipeline()
            asked.hset(key("batch_lines", batch.id), mapping={str(number): text for number, text in noted.items()})
            asked.expire(key("batch_lines", batch.id), MAX_EXPIRES_S)
            asked.execute()


def _read(record: Mapping[str, str]) -> Batch | None:
    numbers = {name: int(record[name]) for name in _NUMBERS if name in record}
    return records.read(Batch, {**record, **numbers}) if "id" in record else None


_NUMBERS = (
    "created_ms",
    "ends_ms",
    "files_kept_s",
    "total",
    "completed",
    "failed",
    "in_progress_ms",
    "cancelling_ms",
    "finalizing_ms",
    "completed_ms",
    "failed_ms",
    "expired_ms",
    "cancelled_ms",
)
