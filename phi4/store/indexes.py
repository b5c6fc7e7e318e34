"""Keeps indexes of records that expire: lists what they name, and takes off them what is no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, cast

import redis

from phi4.store.keys import key

T = TypeVar("T")
#: Ids looked at when one comes in: more than one, so that those whose record ran out stay the fewer.
_LOOKED_AT = 3
#: Records read in one step.
_PAGE = 500


def newest(client: redis.Redis, index: str, kind: str, read: Callable[[dict[str, str]], T | None]) -> list[T]:
    """List the records of an index, newest first; `kind` is what its records are called among the keys."""
    ids = cast(list[str], client.zrange(index, 0, -1, desc=True))
    records = dict(zip(ids, _records(client, kind, ids), strict=True))
    if gone := [name for name, record in records.items() if not record]:
        client.zrem(index, *gone)
    return [one for record in records.values() if record and (one := read(record))]


def _records(client: redis.Redis, kind: str, ids: Sequence[str]) -> Iterator[dict[str, str]]:
    for at in range(0, len(ids), _PAGE):
        with client.pipeline(transaction=False) as asked:
            for name in ids[at : at + _PAGE]:
                asked.hgetall(key(kind, name))
            yield from asked.execute()


def tidy(client: redis.Redis, index: str, kind: str) -> None:
    """Take ids whose record ran out off an index, a few at a time: nobody may ever list it."""
    ids = cast(Sequence[str], client.zrandmember(index, _LOOKED_AT))
    with client.pipeline(transaction=False) as asked:
        for name in ids:
            asked.exists(key(kind, name))
        gone = [name for name, exists in zip(ids, asked.execute(), strict=True) if not exists]
    if gone:
        client.zrem(index, *gone)
