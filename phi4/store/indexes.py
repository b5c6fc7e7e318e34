"""Reads lists of records by their index, and takes off it what is no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import redis

T = TypeVar("T")


def newest(client: redis.Redis, index: str, find: Callable[[str], T | None]) -> list[T]:
    """List the records of an index, newest first; ids whose record ran out leave the index."""
    found = []
    for name in cast(list[str], client.zrange(index, 0, -1, desc=True)):
        if record := find(name):
            found.append(record)
        else:
            client.zrem(index, name)
    return found
