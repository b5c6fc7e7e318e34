"""Uploaded files: their records. The bytes lie in the blob store, and go with it and the batches that read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import redis

from phi4 import records
from phi4.errors import NotFound
from phi4.store.indexes import newest, tidy
from phi4.store.keys import SHARED_TTL_S, key


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file; times are Unix milliseconds of Redis' clock."""

    id: str
    owner: str
    filename: str
    purpose: str
    bytes: int
    sha256: str
    created_ms: int
    expires_ms: int

    @property
    def blob(self) -> str:
        """Where its bytes are."""
        return f"{self.id}/content"


class Files:
    """The files of every owner."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def add(self, file: StoredFile) -> None:
        """Note a file whose bytes are stored."""
        with self._client.pipeline() as step:
            step.hset(key("file", file.id), mapping=cast(Any, asdict(file)))
            step.pexpireat(key("file", file.id), file.expires_ms)
            step.zadd(key("files", file.owner), {file.id: 0})
            step.expire(key("files", file.owner), SHARED_TTL_S)
            step.execute()
        tidy(self._client, key("files", file.owner), "file")

    def find(self, file_id: str) -> StoredFile | None:
        """Read one file's record, whoever owns it."""
        return _read(cast(dict[str, str], self._client.hgetall(key("file", file_id))))

    def get(self, file_id: str, owner: str | None) -> StoredFile:
        """Read one file of `owner` (None: of anybody). Raises `NotFound`, also for another owner's file."""
        file = self.find(file_id)
        if file is None or owner not in (None, file.owner):
            raise NotFound(f"There is no file {file_id[:100]!r}.")
        return file

    def newest(self, owner: str) -> list[StoredFile]:
        """List an owner's files, newest first."""
        return newest(self._client, key("files", owner), "file", _read)

    def delete(self, file: StoredFile) -> None:
        """Forget a file."""
        self._client.delete(key("file", file.id))
        self._client.zrem(key("files", file.owner), file.id)


def _read(record: Mapping[str, str]) -> StoredFile | None:
    numbers = {name: int(record[name]) for name in ("bytes", "created_ms", "expires_ms") if name in record}
    return records.read(StoredFile, {**record, **numbers}) if record else None
