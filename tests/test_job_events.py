"""GET /v1/jobs/{id}/events: what happens to a job, as it happens, and again from any event on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import takewhile
from typing import Any

import pytest

from phi4.job import new_id
from tests.api_alone import answers, api_alone
from tests.conftest import Service, eventually
from tests.event_streams import all_events, stream, text_of, told
from tests.refusals import Bad, check, wrong_field
from tests.scripted_jobs import accepted, prompted, running

WORDS = "the|quick|brøwn|fox|jumps|över|it|all"
TEXT = WORDS.replace("|", "")


@pytest.fixture(scope="module")
def narrow(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An API without workers that has room for two streams."""
    with api_alone(valkey, tmp_path_factory.mktemp("api"), PHI4_MAX_EVENT_STREAMS="2") as service:
        yield service


def test_a_stream_tells_a_job_from_its_begin_to_its_end(service: Service) -> None:
    """Status, progress and text in order, each with a number that grows by one; the result comes last."""
    job_id = prompted(service, f"speak 0.1 {WORDS}")

    events = all_events(service, job_id)

    assert told([e for e in events if e.event != "delta"]) == ["queued", "in_progress", (1, 1), "completed", "result"]
    assert text_of(events) == TEXT
    assert [int(e.id) for e in events] == list(range(1, len(events) + 1))
    assert {e.json()["job_id"] for e in events} == {job_id}
    assert events[-1].json()["result"] == service.job(job_id)["result"]
    assert [e.json()["unit"] for e in events if e.event == "progress"] == ["page"]


def test_the_headers_keep_proxies_from_holding_events_back(service: Service) -> None:
    """A stream is neither cached nor buffered, and says when to come back."""
    job_id = service.ended(prompted(service, "read"))["id"]

    response = service.http.get(f"/v1/jobs/{job_id}/events")

    assert response.headers["Content-Type"].startswith("text/event-stream")
    assert (response.headers["Cache-Control"], response.headers["X-Accel-Buffering"]) == ("no-cache", "no")
    assert response.text.startswith("retry: ")


def test_whoever_comes_late_gets_what_was_kept(service: Service) -> None:
    """A job that ended tells its status, progress and result, and the stream ends."""
    job_id = service.ended(prompted(service, "read", pages=2))["id"]

    events = all_events(service, job_id)

    assert told(events) == ["queued", "in_progress", (1, 2), (2, 2), "completed", "result"]
    assert sorted(e.json()["part"] for e in events if e.event == "progress") == [0, 1]


@pytest.mark.parametrize("words", ["cannot", "fail"])
def test_a_failed_job_ends_its_stream_with_its_error(service: Service, words: str) -> None:
    """The last event carries the error that the job shows."""
    job_id = prompted(service, words)

    events = all_events(service, job_id)

    assert told(events)[-2] == "failed"
    assert events[-1].event == "error"
    assert events[-1].json()["error"] == service.job(job_id)["error"]


def test_a_cancelled_job_ends_its_stream(service: Service) -> None:
    """No text follows the cancelling."""
    job_id = running(service, prompted(service, f"speak 0.1 {'|'.join('x' * 300)}"))
    with stream(service, job_id) as events:
        seen = list(takewhile(lambda e: e.event != "delta", events))
        service.http.post(f"/v1/jobs/{job_id}/cancel")
        seen += events

    words = told(seen)
    assert words[words.index("cancelling") :] == ["cancelling", "cancelled", "error cancelled"]


def test_a_reader_that_comes_back_misses_nothing_and_gets_nothing_twice(service: Service) -> None:
    """Last-Event-ID goes on after that event, wherever the connection broke; so does `?after=`."""
    job_id = prompted(service, f"speak 0.1 {WORDS}", pages=2)
    events: list[Any] = []
    while not events or events[-1].event not in ("result", "error"):
        with stream(service, job_id, int(events[-1].id) if events else None) as some:
            events += [event for event, _ in zip(some, range(3), strict=False)]

    assert [int(e.id) for e in events] == list(range(1, len(events) + 1))
    assert (text_of(events, 0), text_of(events, 1)) == (TEXT, TEXT)
    for after in (1, len(events) - 2):
        assert [e.id for e in all_events(service, job_id, after)] == [e.id for e in events[after:]]
        by_argument = service.http.get(f"/v1/jobs/{job_id}/events", params={"after": after})
        assert by_argument.text.count("\nid: ") == len(events) - after


def test_after_the_last_event_there_is_nothing(service: Service) -> None:
    """204, which tells a browser not to ask again."""
    job_id = service.ended(prompted(service, "read"))["id"]
    last = all_events(service, job_id)[-1].id

    response = service.http.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": last})

    assert (response.status_code, response.content) == (204, b"")


def test_two_readers_get_the_same(service: Service) -> None:
    """One reader takes nothing from another."""
    job_id = prompted(service, f"speak 0.1 {WORDS}")

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: all_events(service, job_id), range(2))

    assert [(e.id, e.event, e.data) for e in one] == [(e.id, e.event, e.data) for e in other]
    assert text_of(one) == TEXT


def test_a_part_that_is_tried_again_begins_its_text_anew(service: Service) -> None:
    """Offset 0 under a new attempt tells the reader to drop what it had."""
    job_id = prompted(service, f"speak 0.1 {WORDS} fail once {new_id('once')}")

    events = all_events(service, job_id)

    begins = [e.json()["attempt"] for e in events if e.event == "delta" and e.json()["offset"] == 0]
    assert begins == [1, 2]
    assert text_of(events) == TEXT
    assert told(events)[-1] == "result"


def test_an_engine_may_begin_a_text_anew(service: Service) -> None:
    """What it said before is told no more, or taken back."""
    events = all_events(service, prompted(service, f"speak 0.1 {WORDS} stutter"))

    assert text_of(events) == TEXT


def test_a_reader_of_a_deleted_job_is_told(service: Service) -> None:
    """The stream ends with an error that has no number: there is nothing to come back to."""
    job_id = running(service, prompted(service, "sleep 60"))
    with stream(service, job_id) as events:
        seen = [next(events), next(events)]
        service.http.delete(f"/v1/jobs/{job_id}")
        seen += events

    assert told(seen) == ["queued", "in_progress", "error not_found"]
    assert seen[2].id == seen[1].id, "the id that a client keeps is that of the event before"


def test_there_is_no_stream_of_a_job_that_is_not_there(service: Service) -> None:
    """404 for an id that nobody has."""
    check(service.http.get(f"/v1/jobs/{new_id('job')}/events"), Bad(404, "not_found"))


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "٣", "9" * 16])
@pytest.mark.parametrize(
    ("request_of", "field"),
    [
        (lambda v: {"headers": {"Last-Event-ID": v.encode()}}, "Last-Event-ID"),
        (lambda v: {"params": {"after": v}}, "after"),
    ],
)
def test_an_id_that_is_none_is_refused(
    narrow: Service, value: str, request_of: Callable[[str], dict[str, Any]], field: str
) -> None:
    """Ids are whole numbers; the problem names the header or the argument."""
    job_id = accepted(narrow.submit())["id"]

    response = narrow.http.get(f"/v1/jobs/{job_id}/events", **request_of(value))
    narrow.http.delete(f"/v1/jobs/{job_id}")

    check(response, wrong_field(field))


def test_streams_have_a_bound_and_leave_room_for_others(narrow: Service) -> None:
    """429 with Retry-After for one more; everything else is answered, and a stream that was left makes room."""
    job_id = accepted(narrow.submit())["id"]
    with ExitStack() as opened:
        streams = [opened.enter_context(stream(narrow, job_id)) for _ in range(2)]
        assert [next(s).json()["status"] for s in streams] == ["queued", "queued"]

        refused = narrow.http.get(f"/v1/jobs/{job_id}/events")
        check(refused, Bad(429, "too_many_streams"))
        assert int(refused.headers["Retry-After"]) > 0
        assert narrow.http.head(f"/v1/jobs/{job_id}/events").status_code == 200
        assert narrow.http.get("/livez").status_code == 200
        assert narrow.http.get("/readyz").status_code == 503, "there is no worker, and it can say so"
        narrow.http.delete(f"/v1/jobs/{accepted(narrow.submit())['id']}")

    eventually(lambda: opens(narrow, job_id), what="room for a stream")
    narrow.http.delete(f"/v1/jobs/{job_id}")


def opens(service: Service, job_id: str) -> bool:
    """Whether there is room for one more stream."""
    with service.http.stream("GET", f"/v1/jobs/{job_id}/events") as response:
        return response.status_code == 200


def test_forty_readers_of_forty_jobs(service: Service) -> None:
    """Each gets its own job's events, all of them, and the API answers others meanwhile."""
    jobs = [prompted(service, f"speak 0.05 {n}|is|my|number") for n in range(40)]
    opened = threading.Barrier(41)

    def read(job_id: str) -> list[Any]:
        with stream(service, job_id) as events:
            first = next(events)
            opened.wait(30)
            return [first, *events]

    with ThreadPoolExecutor(40) as pool:
        reading = [pool.submit(read, job_id) for job_id in jobs]
        opened.wait(30)
        assert service.http.get("/readyz").status_code == 200
        told_of = [future.result() for future in reading]

    for number, (job_id, events) in enumerate(zip(jobs, told_of, strict=True)):
        assert {e.json()["job_id"] for e in events} == {job_id}
        assert [int(e.id) for e in events] == list(range(1, len(events) + 1))
        assert told(events)[-1] == "result"
        assert text_of(events) in ("", f"{number}ismynumber")


def test_a_stream_outlives_a_stop_of_the_api_by_coming_back(valkey: str, tmp_path_factory: Any) -> None:
    """An API that is told to end ends its streams at once and itself with 0; the events are there for the next one."""
    with api_alone(valkey, tmp_path_factory.mktemp("api")) as service:
        job_id = accepted(service.submit())["id"]
        with stream(service, job_id) as events:
            first = next(events)
            service.processes["api"].terminate()
            assert list(events) == []
        assert service.processes["api"].wait(15) == 0
        service.start("api", "api")
        eventually(lambda: answers(service), what="the next API")
        service.http.post(f"/v1/jobs/{job_id}/cancel")
        assert told(all_events(service, job_id, int(first.id))) == ["cancelling", "cancelled", "error cancelled"]
