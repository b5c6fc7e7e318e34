"""How many pages, and how much sound, the jobs of one key may have in flight: the rest wait their turn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from phi4.errors import Cancelled
from phi4.job import NewJob, Share, Unit
from phi4.store import Store, WorkerInfo
from phi4.store.access import ApiKey
from phi4.store.keys import key
from tests.keyed_app import JOB, keyed
from tests.making_jobs import (
    DONE,
    FAILED,
    LONG_MS,
    VISION,
    WORKER,
    check_store,
    claim,
    complete,
    lose_lease,
    nothing_waits,
    plan,
    prepared,
    raw,
    read,
    reap,
    reap_until,
    submit,
)

TWO_PAGES = Share("phi4_a.pages", 2)


def in_flight(store: Store, job: NewJob) -> int:
    """What a job has in flight now; the store is checked on the way."""
    check_store(store)
    return int(raw(store).hget(key("job", job.id), "in_flight") or 0)


def test_the_jobs_of_a_key_have_no_more_pages_in_flight_than_it_may(store: Store) -> None:
    """Whatever the jobs; each page that ends lets one in, of the job that has waited the longest."""
    first, second = prepared(store, 3, share=TWO_PAGES), prepared(store, 2, share=TWO_PAGES)
    other = prepared(store, 3, owner="other")
    assert (in_flight(store, first), in_flight(store, second)) == (2, 0)
    assert store.work.waiting() == {VISION: 5, "held": 3}, "another owner's jobs are as free as ever"

    seen = []
    for _ in range(8):
        part = claim(store)
        if part.job.id != other.id:
            seen.append((part.job.id, in_flight(store, first) + in_flight(store, second)))
        if finish := complete(store, part):
            store.work.end(finish, "completed")

    assert [job_id for job_id, _ in seen] == [first.id] * 3 + [second.id] * 2
    assert max(count for _, count in seen) == 2
    assert (in_flight(store, first), in_flight(store, second)) == (0, 0)
    assert nothing_waits(store)
    assert raw(store).keys(key("in_flight", "*")) + raw(store).keys(key("parked", "*")) == []


@pytest.mark.parametrize(
    ("spec", "pages"),
    [
        ({"images": [{}, {}, {}]}, 3),
        ({"media": [[{}, {}], [{}]]}, 3),
        ({"media": [[]]}, 1),
        ({"media": []}, 1),
        ({"input": 0, "page": 1}, 1),
    ],
)
def test_a_part_counts_as_many_pages_as_it_has(store: Store, spec: dict[str, Any], pages: int) -> None:
    """A conversation too: those of all its inputs, and a clip as a page."""
    job = submit(store, share=Share("phi4_a.pages", 8))

    store.work.plan(claim(store, "prepare"), [spec], first=0, sealed=True, worker=WORKER, lease_ms=LONG_MS)

    assert in_flight(store, job) == pages


def test_a_finished_page_reports_the_pages_it_let_in(store: Store) -> None:
    """Also those of another job, so that a worker is woken for each."""
    prepared(store, 2, share=TWO_PAGES)
    prepared(store, 1, share=TWO_PAGES)

    assert store.work.complete(claim(store), DONE, WORKER, LONG_MS).let_in == 1


def cancel(store: Store, job: NewJob, part: Unit) -> None:
    """Cancel a job; its worker obeys."""
    store.jobs.cancel(job.id, Cancelled())
    store.work.put_back(part, counts=False)


def cancel_and_lose_the_worker(store: Store, job: NewJob, part: Unit) -> None:
    """Cancel a job whose worker is dead."""
    store.jobs.cancel(job.id, Cancelled())
    lose_lease(store, part)


def expire(store: Store, job: NewJob, _part: Unit) -> None:
    """Reach the expiry of a job that still runs."""
    raw(store).zadd(key("expiries"), {job.id: 1})
    reap_until(store, lambda reaped: reaped.expired)


def miss_the_deadline(store: Store, job: NewJob, part: Unit) -> None:
    """Reach the deadline of a job; its worker obeys."""
    raw(store).zadd(key("deadlines"), {job.id: 1})
    reap(store)
    store.work.put_back(part, counts=False)


def die_alone(store: Store, _job: NewJob, part: Unit) -> None:
    """Let every part end its worker until it is given up."""
    taken: Unit | None = part
    while taken:
        store.work.runs_alone(taken)
        lose_lease(store, taken)
        taken = store.work.claim(VISION, WORKER, LONG_MS)
        if taken and taken.job.id != part.job.id:
            store.work.put_back(taken, counts=False)
            return


def fail(store: Store, job: NewJob, part: Unit) -> None:
    """Let both parts fail."""
    complete(store, part, FAILED)
    complete(store, claim(store), FAILED)


ENDINGS: list[Callable[[Store, NewJob, Unit], Any]] = [
    cancel,
    cancel_and_lose_the_worker,
    expire,
    miss_the_deadline,
    die_alone,
    fail,
    lambda store, job, part: store.jobs.delete(job.id),
]


@pytest.mark.parametrize("end", ENDINGS, ids=[*(e.__name__ for e in ENDINGS[:-1]), "delete"])
def test_whatever_ends_a_job_gives_its_share_back(store: Store, end: Callable[[Store, NewJob, Unit], Any]) -> None:
    """The next job of the key goes on, and nothing stays counted."""
    first, second = prepared(store, 2, share=TWO_PAGES), prepared(store, 2, share=TWO_PAGES)
    assert (in_flight(store, first), in_flight(store, second)) == (2, 0)

    end(store, first, claim(store))

    assert in_flight(store, second) == 2
    assert (store.jobs.find(first.id) is None) or in_flight(store, first) == 0


@pytest.mark.parametrize("end", ["cancel", "delete"])
def test_a_job_that_waits_can_be_ended(store: Store, end: str) -> None:
    """It leaves the queue of its share, and holds up nobody behind it."""
    first, behind, waits = (prepared(store, 2, share=TWO_PAGES) for _ in range(3))

    if end == "cancel":
        store.jobs.cancel(waits.id, Cancelled())
        assert read(store, waits).status == "cancelled"
    else:
        store.jobs.delete(waits.id)
    check_store(store)

    for _ in range(2):
        complete(store, claim(store))
    assert (in_flight(store, first), in_flight(store, behind)) == (0, 2)


def test_a_part_that_is_tried_again_keeps_its_share(store: Store) -> None:
    """It is still in flight."""
    job = prepared(store, 3, share=TWO_PAGES)

    store.work.put_back(claim(store), counts=True)
    lose_lease(store, claim(store))

    assert in_flight(store, job) == 2


def test_a_question_over_more_pages_than_the_share_goes_alone(store: Store) -> None:
    """It would else wait for ever; and small ones do not keep it waiting for ever either."""
    small = prepared(store, 2, share=TWO_PAGES)
    big = submit(store, share=TWO_PAGES)
    plan(store, claim(store, "prepare"), 1, pages=5)
    later = prepared(store, 2, share=TWO_PAGES)
    assert (in_flight(store, small), in_flight(store, big)) == (2, 0)

    complete(store, claim(store))
    newest = prepared(store, 1, share=TWO_PAGES)
    waiting = (in_flight(store, big), in_flight(store, later), in_flight(store, newest))
    assert waiting == (0, 0, 0), "there is room for a page, but the big one is first"
    complete(store, claim(store))
    assert (in_flight(store, big), in_flight(store, later)) == (5, 0)
    assert claim(store).job.id == big.id


def test_sound_is_counted_by_its_length(store: Store) -> None:
    """In milliseconds, and apart from pages."""
    sound = Share("phi4_a.sound", 10_000)
    job = submit(store, type="asr", share=sound)
    clips = [{"input": 0, "start": n * 4.0, "end": n * 4.0 + 3.5} for n in range(4)]
    store.work.plan(claim(store, "prepare"), clips, first=0, sealed=True, worker=WORKER, lease_ms=LONG_MS)

    assert in_flight(store, job) == 7_000
    assert in_flight(store, prepared(store, 2, share=TWO_PAGES)) == 2
    claimed = claim(store, "infer.speech.normal")
    complete(store, claimed)
    assert in_flight(store, job) == 7_000


def test_a_job_that_waits_for_its_share_says_so(store: Store, tmp_path: Path) -> None:
    """`queue.reason` tells it apart from one that nobody serves."""
    client = keyed(store, tmp_path, acme={"in_flight_pages": 1}).client("acme")
    first, second = (client.post("/v1/jobs", json=JOB).get_json()["id"] for _ in range(2))
    for _ in range(2):
        plan(store, claim(store, "prepare"), 1)
    claim(store)
    store.workers.announce(WorkerInfo(WORKER, (VISION,), "ready"))

    assert client.get(f"/v1/jobs/{first}").get_json()["status"] == "in_progress"
    waiting = client.get(f"/v1/jobs/{second}").get_json()
    assert waiting["queue"] == {"reason": "in_flight_limit"}
    assert store.jobs.waits_for_share(store.jobs.get(second, "acme"))
    assert not store.jobs.waits_for_share(store.jobs.get(first, "acme"))


def test_no_two_keys_share_what_they_allow() -> None:
    """A share is named after its key, and pages are one thing and sound another."""
    one, other = (ApiKey(f"phi4_{n}", "n", "acme", "", in_flight_pages=1, in_flight_seconds=2) for n in "ab")

    assert (one.share("ocr").most, one.share("vqa").most, one.share("asr").most) == (1, 1, 2_000)
    assert len({k.share(t).name for k in (one, other) for t in ("ocr", "asr")}) == 4
    assert one.share("ocr") == one.share("vqa")
    assert ApiKey("k", "n", "acme", "").share("ocr") == Share()
