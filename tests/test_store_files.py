"""Records of uploaded files and batches, which run out by themselves, and what a store in trouble says of them."""

from __future__ import annotations

from typing import Any

import pytest

from phi4.errors import Phi4Error, StorageFull, StoreUnavailable
from phi4.job import new_id
from phi4.store import Store
from phi4.store.connection import connect
from phi4.store.files import StoredFile
from phi4.store.keys import key
from tests.making_jobs import raw


def file(store: Store, *, kept_ms: int = 60_000) -> StoredFile:
    """A file of owner `o` that was stored just now."""
    now = store.now_ms()
    return StoredFile(new_id("file", now), "o", "a.png", "user_data", 1, "", now, now + kept_ms)


def test_files_are_listed_newest_first(store: Store) -> None:
    """Those whose record ran out are not, and leave the index."""
    first, second, gone = file(store), file(store), file(store)
    for one in (first, second, gone):
        store.files.add(one)
    raw(store).delete(key("file", gone.id))

    assert [one.id for one in store.files.newest("o")] == sorted((first.id, second.id), reverse=True)
    assert raw(store).zcard(key("files", "o")) == 2


def test_an_index_that_nobody_lists_stays_small(store: Store) -> None:
    """Whoever uploads a file for each request may never list them; each one that comes takes others along."""
    kept = file(store)
    store.files.add(kept)
    for _ in range(40):
        store.files.add(file(store, kept_ms=-1))

    assert raw(store).zcard(key("files", "o")) < 10
    assert [one.id for one in store.files.newest("o")] == [kept.id]


def test_a_full_store_takes_no_file(store: Store) -> None:
    """`StorageFull`, as of a job."""
    raw(store).config_set("maxmemory", 1)
    try:
        with pytest.raises(StorageFull):
            store.files.add(file(store))
    finally:
        raw(store).config_set("maxmemory", 0)


@pytest.mark.parametrize(
    ("away", "told", "error"),
    [
        pytest.param(True, "", StoreUnavailable, id="nobody answers"),
        pytest.param(False, "OOM no memory", StorageFull, id="no memory"),
        pytest.param(False, "MISCONF no disk", StorageFull, id="no disk"),
        pytest.param(False, "READONLY a replica", StoreUnavailable, id="a replica"),
    ],
)
def test_commands_that_go_together_name_their_failures(
    valkey: str, away: bool, told: str, error: type[Phi4Error]
) -> None:
    """As single commands do."""
    steps: Any = connect("redis://127.0.0.1:1/0" if away else valkey).pipeline(transaction=False)
    steps.eval(f"return redis.error_reply('{told}')", 0)

    with pytest.raises(error):
        steps.execute()
