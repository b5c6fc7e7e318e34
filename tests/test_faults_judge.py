"""The judge of `make faults` finds what a service does wrong: a bench that could find nothing would prove nothing."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from bench.faults.judge import Judge, Verdict
from bench.faults.mix import Accepted, Kind
from tests.servers import Request, Web

KIND = Kind("ocr", "", (b"",), 2)
Jobs = dict[str, dict[str, Any]]


class Service:
    """Answers for jobs as they are here, and has told their ends by webhook."""

    def __init__(self) -> None:
        self.jobs: Jobs = {name: _job(name) for name in ("job_a", "job_b")}
        self.receiver = Web("http://receiver")
        for name, job in self.jobs.items():
            self.tell(name, f"job.{job['status']}")

    def tell(self, job: str, event: str, id: str = "evt_1") -> None:
        """Send a webhook."""
        body = json.dumps({"job": {"id": job}, "event": event}).encode()
        self.receiver.seen.append(Request("POST", "/", {"webhook-id": id}, body))

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Show a job, or all of them."""
        name = request.url.path.removeprefix("/v1/jobs").removeprefix("/")
        if not name:
            return httpx.Response(200, json={"data": list(self.jobs.values()), "has_more": False})
        return httpx.Response(200, json=self.jobs[name]) if name in self.jobs else httpx.Response(404, json={})


def _job(name: str) -> dict[str, Any]:
    return {
        "id": name,
        "status": "completed",
        "started_at": 1,
        "completed_at": int(time.time()),
        "metadata": {"number": name},
        "progress": {"completed": 2, "total": 2},
        "usage": {"pages": 2},
        "result": {"pages": [{"index": 0}, {"index": 1}]},
    }


def verdict(service: Service, *ids: str, excused: tuple[str, ...] = ()) -> Verdict:
    """Judge two jobs, waiting for a moment only."""
    accepted = [Accepted(name, n, KIND, time.monotonic()) for n, name in enumerate(ids or ("job_a", "job_b"))]
    transport = httpx.MockTransport(service.answer)
    with httpx.Client(transport=transport, base_url="http://service") as http:
        return Judge(http, service.receiver, bound=0.3, excused=excused)(accepted, fault_at=time.monotonic())


def counts(one: Verdict) -> tuple[int, int, int]:
    """Lost, doubled, stuck."""
    return one.lost, one.doubled, one.stuck


def _forget(service: Service) -> None:
    del service.jobs["job_b"]


def _fail(service: Service) -> None:
    service.jobs["job_b"] |= {"status": "failed", "error": {"code": "internal_error"}}
    service.receiver.seen.pop()
    service.tell("job_b", "job.failed")


def _say_nothing(service: Service) -> None:
    service.receiver.seen.pop()


def _tell_of_another_end(service: Service) -> None:
    service.receiver.seen.pop()
    service.tell("job_b", "job.failed")


def _leave_a_page_out(service: Service) -> None:
    service.jobs["job_b"]["result"]["pages"].pop()


def _fail_a_page(service: Service) -> None:
    service.jobs["job_b"]["result"]["pages"][1]["error"] = {"code": "internal_error"}


def _show_a_page_twice(service: Service) -> None:
    service.jobs["job_b"]["result"]["pages"].append({"index": 2})


def _charge_twice(service: Service) -> None:
    service.jobs["job_b"]["usage"]["pages"] = 3


def _count_twice(service: Service) -> None:
    service.jobs["job_b"]["progress"]["completed"] = 3


def _tell_twice(service: Service) -> None:
    service.tell("job_b", "job.completed", "evt_2")


def _tell_two_ends(service: Service) -> None:
    service.tell("job_b", "job.failed", "evt_2")


def _make_two_jobs(service: Service) -> None:
    service.jobs["job_c"] = copy.deepcopy(service.jobs["job_b"]) | {"id": "job_c"}


def _never_start(service: Service) -> None:
    service.jobs["job_b"] |= {"status": "queued", "started_at": None, "completed_at": None, "result": None}
    service.receiver.seen.pop()


def _never_end(service: Service) -> None:
    service.jobs["job_b"] |= {"status": "in_progress", "completed_at": None, "result": None}
    service.receiver.seen.pop()


def _never_stop(service: Service) -> None:
    service.jobs["job_b"] |= {"status": "cancelling", "completed_at": None, "result": None}
    service.receiver.seen.pop()


#: What a service does, and how often it is lost, doubled and stuck.
WRONGS: list[tuple[Callable[[Service], None], tuple[int, int, int]]] = [
    (_forget, (1, 0, 0)),
    (_fail, (1, 0, 0)),
    (_say_nothing, (1, 0, 0)),
    (_tell_of_another_end, (1, 0, 0)),
    (_leave_a_page_out, (1, 0, 0)),
    (_fail_a_page, (1, 0, 0)),
    (_show_a_page_twice, (0, 1, 0)),
    (_charge_twice, (0, 1, 0)),
    (_count_twice, (0, 1, 0)),
    (_tell_twice, (0, 1, 0)),
    (_tell_two_ends, (0, 1, 0)),
    (_make_two_jobs, (0, 1, 0)),
    (_never_start, (0, 0, 1)),
    (_never_end, (0, 0, 1)),
    (_never_stop, (0, 0, 1)),
]


def test_a_service_that_does_all_it_must_is_clean() -> None:
    """Nothing lost, doubled or stuck, and nothing to say."""
    assert verdict(Service()) == Verdict(0, 0, 0, pytest.approx(1.0, abs=1.0))


@pytest.mark.parametrize(("wrong", "found"), WRONGS, ids=[wrong.__name__.strip("_") for wrong, _ in WRONGS])
def test_what_a_service_does_wrong_is_found(wrong: Callable[[Service], None], found: tuple[int, int, int]) -> None:
    """Each counted once, under its name, and told."""
    service = Service()
    wrong(service)

    one = verdict(service)

    assert counts(one) == found, one.why
    assert all("job_b" in why for why in one.why)


def test_one_job_for_two_keys_is_found() -> None:
    """Two clients were promised one thing each."""
    assert counts(verdict(Service(), "job_a", "job_a")) == (0, 1, 0)


def test_a_fault_excuses_its_own_errors_only() -> None:
    """A job that failed as it may is not lost; one that failed otherwise is."""
    service = Service()
    _fail(service)

    assert counts(verdict(service, excused=("internal_error",))) == (0, 0, 0)
    assert counts(verdict(service, excused=("storage_full",))) == (1, 0, 0)


def test_recovery_is_counted_to_the_last_end() -> None:
    """A job that ended long after the fault shows in the figure."""
    service = Service()
    service.jobs["job_b"]["completed_at"] += 40

    assert 40 <= verdict(service).recovery_s <= 42
