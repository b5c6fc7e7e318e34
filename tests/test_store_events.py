"""The event streams in the store: written with the change they tell of, bounded, and gone with their job."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from phi4.errors import Cancelled
from phi4.job import NewJob, Status, Unit
from phi4.store import Event, Piece, Store
from phi4.store.keys import MOST_EVENTS, PROGRESS_STEPS, key
from phi4.store.work import Outcome
from tests.conftest import eventually
from tests.making_jobs import (
    DEATHS,
    FAILED,
    check_store,
    claim,
    complete,
    finished,
    lose_lease,
    plan,
    prepared,
    raw,
    reap_until,
    submit,
)


@pytest.fixture(autouse=True)
def _consistent_store(store: Store) -> Any:
    """After every test here: counters equal what they count, and all keys have an end."""
    yield
    check_store(store)


def words(store: Store, job: NewJob, after: int = 0) -> list[str]:
    """A job's events, each in a word."""
    return [_word(event) for event in store.events.read(job.id, after)[1]]


def _word(event: Event) -> str:
    match event.name:
        case "status":
            return str(event.data["status"])
        case "progress":
            return f"{event.data['completed']}/{event.data['total']}"
        case "delta":
            return str(event.data["text"])
    return event.name


def piece(part: Unit, text: str, offset: int = 0, take: int = 0) -> Piece:
    """Some text of a part."""
    return Piece(part, take, offset, text.encode())


def test_every_change_writes_its_event(store: Store) -> None:
    """In order, numbered from 1; the end is a status and what came of it."""
    job = prepared(store, 2)
    first = claim(store)
    complete(store, first)
    finish = complete(store, claim(store), FAILED)
    assert finish is not None
    store.work.end(finish, "completed", result="r")

    status, events = store.events.read(job.id)

    assert (status, [e.number for e in events]) == (Status.COMPLETED, [1, 2, 3, 4, 5, 6])
    assert words(store, job) == ["queued", "in_progress", "1/2", "2/2", "completed", "result"]
    assert events[2].data == {"part": 0, "completed": 1, "total": 2}


def test_events_agree_with_the_record_also_when_a_part_is_given_up(store: Store) -> None:
    """A part that ended three workers counts as progress, and the job's error is its last event."""
    job = prepared(store)
    for _ in range(DEATHS):
        part = claim(store)
        store.work.runs_alone(part)
        lose_lease(store, part)
    finish = claim(store, "prepare")
    store.work.end(finish, "failed", error={"code": "worker_lost"})

    events = store.events.read(job.id)[1]

    assert words(store, job) == ["queued", "in_progress", "1/1", "failed", "error"]
    assert events[-1].data == {"part": None, "error": {"code": "worker_lost"}}


def test_reading_goes_on_after_an_event(store: Store) -> None:
    """And gives as many as asked for."""
    job = finished(store)

    assert words(store, job, 3) == ["completed", "result"]
    assert [e.number for e in store.events.read(job.id, 1, most=2)[1]] == [2, 3]
    assert store.events.read(job.id, 5) == (Status.COMPLETED, [])
    assert store.events.read("job_none") == (None, [])


def test_a_job_of_very_many_parts_has_a_short_stream(store: Store) -> None:
    """Progress is told in steps, so that no status is ever cut off; the last step is told."""
    parts = 3 * PROGRESS_STEPS
    job = prepared(store, parts, window=parts)
    raw(store).hset(key("job", job.id), mapping={"done": parts - 4})
    for _ in range(4):
        complete(store, claim(store))

    told = words(store, job)

    assert told == ["queued", "in_progress", f"{parts - 3}/{parts}", f"{parts}/{parts}"]
    assert PROGRESS_STEPS * 2 < MOST_EVENTS
    store.jobs.delete(job.id)


def test_text_is_written_for_a_reader_in_order_with_the_rest(store: Store) -> None:
    """Numbers run through status and text alike."""
    job = prepared(store)
    store.events.read(job.id)
    part = claim(store)
    assert store.events.say([piece(part, "Grü"), piece(part, "ße", offset=4)]) == ["ok", "ok"]
    complete(store, part, Outcome(out="o", last_piece=piece(part, "!", offset=7)))

    events = store.events.read(job.id)[1]

    assert words(store, job) == ["queued", "in_progress", "Grü", "ße", "!", "1/1"]
    assert [e.number for e in events] == [1, 2, 3, 4, 5, 6]
    assert events[3].data == {"part": 0, "attempt": 1, "offset": 4, "text": "ße"}


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ([("ab", 0, 0), ("ab", 0, 0)], ["ab"]),  # the answer got lost
        ([("äb", 0, 0), ("äbcd", 0, 0)], ["äb", "cd"]),  # and more came in the meantime
        ([("ab", 0, 0), ("cd", 2, 0), ("bcd", 1, 0)], ["ab", "cd"]),
        ([("ab", 0, 0), ("x", 0, 1), ("y", 1, 1)], ["ab", "x", "y"]),  # begun anew
    ],
)
def test_text_sent_twice_is_told_once(store: Store, sent: list[tuple[str, int, int]], told: list[str]) -> None:
    """Whatever was sent before is left out; a new take begins at 0."""
    job = prepared(store)
    store.events.read(job.id)
    part = claim(store)

    for text, offset, take in sent:
        assert store.events.say([piece(part, text, offset, take)]) == ["ok"]

    assert words(store, job)[2:] == told


def test_text_nobody_reads_is_not_written(store: Store) -> None:
    """Not even the last of it; a reader's mark goes by itself."""
    job = prepared(store)
    part = claim(store)
    assert store.events.are_read([job.id]) == set()
    assert store.events.say([piece(part, "unheard")]) == ["unread"]
    complete(store, part, Outcome(out="o", last_piece=piece(part, "unheard")))
    assert not raw(store).exists(key("deltas", job.id))

    store.events.read(job.id)

    assert store.events.are_read([job.id, "job_none"]) == {job.id}
    assert raw(store).ttl(key("reader", job.id)) > 0


def end_part(store: Store, part: Unit, job: NewJob) -> None:
    """End a part."""
    complete(store, part)


def cancel(store: Store, part: Unit, job: NewJob) -> None:
    """Cancel a job."""
    store.jobs.cancel(job.id, Cancelled())


def lose(store: Store, part: Unit, job: NewJob) -> None:
    """Lose a part's worker."""
    lose_lease(store, part)


def hand_on(store: Store, part: Unit, job: NewJob) -> None:
    """Let another worker take a part."""
    store.work.put_back(part, counts=True)
    claim(store)


def delete(store: Store, part: Unit, job: NewJob) -> None:
    """Delete a job."""
    store.jobs.delete(job.id)


@pytest.mark.parametrize("end", [end_part, cancel, lose, hand_on, delete])
def test_no_text_after_the_end(store: Store, end: Callable[[Store, Unit, NewJob], None]) -> None:
    """Whoever does not hold the part any more is told so, and nothing is written."""
    job = prepared(store)
    store.events.read(job.id)
    part = claim(store)
    store.events.say([piece(part, "before")])
    end(store, part, job)

    assert store.events.say([piece(part, "after", offset=6)]) == ["lost"]

    assert "after" not in words(store, job)


def test_a_part_tried_again_tells_its_text_anew(store: Store) -> None:
    """Under the attempt's number, from offset 0."""
    job = prepared(store)
    store.events.read(job.id)
    part = claim(store)
    store.events.say([piece(part, "first")])
    store.work.put_back(part, counts=True)
    store.events.say([piece(claim(store), "second")])

    deltas = [e.data for e in store.events.read(job.id)[1] if e.name == "delta"]

    assert [(d["attempt"], d["offset"], d["text"]) for d in deltas] == [(1, 0, "first"), (2, 0, "second")]


@pytest.mark.parametrize("expires_in", [60, 0])
def test_events_go_with_their_job(store: Store, expires_in: int) -> None:
    """At its deletion and at its expiry; until then they live as long as the record."""
    job = prepared(store, expires_in=expires_in)
    store.events.read(job.id)
    store.events.say([piece(claim(store), "text")])
    streams = [key(name, job.id) for name in ("events", "deltas", "reader")]
    assert raw(store).exists(*streams) == 3
    assert raw(store).pexpiretime(streams[0]) == raw(store).pexpiretime(key("job", job.id))
    if expires_in:
        store.jobs.delete(job.id)
    else:
        reap_until(store, lambda r: job.id in r.expired)
    assert raw(store).exists(*streams) == 0


# -- following


class Follower(threading.Thread):
    """Collects what a follower gives, in a thread of its own."""

    def __init__(self, store: Store, job_id: str, after: int = 0) -> None:
        super().__init__(daemon=True)
        self.events: list[Event] = []
        self._following = store.events.follow(job_id, after, tick=0.1)
        self.start()

    def run(self) -> None:
        """Follow to the end."""
        for event in self._following:
            if event:
                self.events.append(event)

    def ended(self) -> list[str]:
        """Wait for the end; gives the events, each in a word."""
        self.join(20)
        assert not self.is_alive()
        return [_word(event) for event in self.events]


def test_a_follower_gets_events_as_they_happen(store: Store) -> None:
    """Those before it began, too, each once; it ends with the job."""
    job = submit(store)
    follower = Follower(store, job.id)
    plan(store, claim(store, "prepare"), 1)
    part = claim(store)
    eventually(lambda: store.events.are_read([job.id]), what="the reader's mark")
    store.events.say([piece(part, "a")])
    store.events.say([piece(part, "b", offset=1)])
    finish = complete(store, part)
    assert finish is not None
    store.work.end(finish, "completed", result="r")

    assert follower.ended() == ["queued", "in_progress", "a", "b", "1/1", "completed", "result"]


def test_a_follower_that_missed_messages_reads(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gap in the numbers tells it to: here every other message is lost."""
    tell = store.changes._tell

    def tell_odd_ones(job_id: str, number: str, name: str, data: str) -> None:
        if int(number) % 2:
            tell(job_id, number, name, data)

    monkeypatch.setattr(store.changes, "_tell", tell_odd_ones)
    job = submit(store)
    follower = Follower(store, job.id)
    eventually(lambda: follower.events, what="the first event")
    plan(store, claim(store, "prepare"), 1)
    part = claim(store)
    store.jobs.cancel(job.id, Cancelled())
    store.work.put_back(part, counts=False)

    assert follower.ended() == ["queued", "in_progress", "cancelling", "cancelled", "error"]


def test_a_follower_of_a_deleted_job_ends(store: Store) -> None:
    """Without a last event: there is none."""
    job = submit(store)
    follower = Follower(store, job.id)
    eventually(lambda: follower.events, what="the first event")
    store.jobs.delete(job.id)

    assert follower.ended() == ["queued"]


def test_a_follower_of_more_than_it_reads_at_once_gets_all(store: Store) -> None:
    """In order."""
    job = prepared(store)
    store.events.read(job.id)
    part = claim(store)
    store.events.say([piece(part, f"{n:04}", offset=4 * n) for n in range(1_200)])
    finish = complete(store, part)
    assert finish is not None
    store.work.end(finish, "completed", result="r")

    events = [event for event in store.events.follow(job.id, tick=0.1) if event]

    assert [e.data["text"] for e in events if e.name == "delta"] == [f"{n:04}" for n in range(1_200)]
    assert [e.number for e in events] == list(range(1, len(events) + 1))
