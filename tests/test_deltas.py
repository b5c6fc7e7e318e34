"""Text on its way from an engine to readers: in order, once, never in the engine's way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from phi4.errors import StoreUnavailable
from phi4.job import NewJob
from phi4.store import Piece, Store, connect
from phi4.store.work import Outcome
from tests.conftest import eventually
from tests.making_jobs import LONG_MS, WORKER, claim, prepared, raw
from worker.deltas import Deltas


@pytest.fixture
def deltas(store: Store) -> Deltas:
    """A writer that writes when told."""
    return Deltas(store, every=0.01)


@pytest.fixture
def running(store: Store) -> Iterator[Deltas]:
    """A writer at work."""
    deltas = Deltas(store, every=0.01)
    deltas.start()
    yield deltas
    deltas.stop()


def text(store: Store, job: NewJob) -> list[str]:
    """The pieces a reader is told."""
    return [e.data["text"] for e in store.events.read(job.id)[1] if e.name == "delta"]


def test_what_came_between_two_writes_is_one_piece(store: Store, deltas: Deltas) -> None:
    """A reader is told a few times a second, not for each token."""
    job = prepared(store)
    telling = deltas.begin(claim(store))
    store.events.read(job.id)
    for word in ("a", "", "b"):
        telling.add(word)
    assert not deltas.write()
    telling.add("\ud800c")
    assert not deltas.write()

    assert text(store, job) == ["ab", "?c"]


def test_a_reader_that_comes_late_gets_all_of_a_running_part(store: Store, deltas: Deltas) -> None:
    """Text waits for one in the worker, not in Redis."""
    job = prepared(store)
    telling = deltas.begin(claim(store))
    telling.add("a")
    assert deltas.write()
    telling.add("b")
    assert raw(store).keys("*deltas*") == []
    store.events.read(job.id)
    assert not deltas.write()

    assert text(store, job) == ["ab"]


def test_the_last_piece_comes_with_the_end_of_the_part(store: Store, deltas: Deltas) -> None:
    """So that none is lost and none comes after it; what an engine says later is nobody's."""
    job = prepared(store)
    store.events.read(job.id)
    part = claim(store)
    telling = deltas.begin(part)
    telling.add("a")
    deltas.write()
    telling.add("b")
    rest = deltas.rest(telling)
    telling.add("late")
    assert not deltas.write()
    store.work.complete(part, Outcome(out="o", last_piece=rest), WORKER, LONG_MS)

    assert text(store, job) == ["a", "b"]


def test_a_part_that_failed_tells_no_more(store: Store, deltas: Deltas) -> None:
    """What waited is dropped."""
    job = prepared(store)
    telling = deltas.begin(claim(store))
    telling.add("a")
    deltas.drop(telling)
    store.events.read(job.id)

    assert not deltas.write()
    assert text(store, job) == []


def test_a_lost_part_tells_no_more(store: Store, deltas: Deltas) -> None:
    """Redis says so once, and is asked no more."""
    job = prepared(store)
    part = claim(store)
    telling = deltas.begin(part)
    store.events.read(job.id)
    store.work.put_back(part, counts=True)
    telling.add("a")
    deltas.write()
    telling.add("b")

    assert not telling.waits
    assert text(store, job) == []


def test_an_answer_without_end_is_not_kept_for_readers(store: Store, deltas: Deltas) -> None:
    """Memory is bounded, whatever an engine says."""
    prepared(store)
    telling = deltas.begin(claim(store))
    for _ in range(3):
        telling.add("x" * 500_000)

    assert not telling.waits


def test_text_outlasts_an_absence_of_redis(store: Store, deltas: Deltas, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits, and is told once when Redis is back; also when Redis had taken it and only its answer was lost."""
    job = prepared(store)
    telling = deltas.begin(claim(store))
    store.events.read(job.id)
    telling.add("a")
    say = store.events.say

    def answer_lost(pieces: Sequence[Piece]) -> None:
        say(pieces)
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(store.events, "say", answer_lost)
        with pytest.raises(StoreUnavailable):
            deltas.write()
    telling.add("b")
    deltas.write()

    assert text(store, job) == ["a", "b"]


def test_a_writer_without_redis_holds_nobody_up(store: Store) -> None:
    """Engines say what they say, and the part gets its last piece."""
    prepared(store)
    away = Store(connect("redis://127.0.0.1:1/0", timeout=0.1))
    deltas = Deltas(away, every=0.01)
    deltas.start()
    try:
        telling = deltas.begin(claim(store))
        telling.add("a")
        rest = deltas.rest(telling)
        assert rest is not None
        assert rest.text == b"a"
    finally:
        deltas.stop()


def test_the_writer_writes_by_itself(store: Store, running: Deltas) -> None:
    """As soon as there is text and somebody to read it."""
    job = prepared(store)
    telling = running.begin(claim(store))
    telling.add("a")
    eventually(lambda: text(store, job) == ["a"], what="the first piece")
    telling.restart()
    telling.add("b")
    eventually(lambda: text(store, job) == ["a", "b"], what="the next")
    offsets = [e.data["offset"] for e in store.events.read(job.id)[1] if e.name == "delta"]
    assert offsets == [0, 0]
