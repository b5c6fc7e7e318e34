"""Judges what became of accepted jobs, by what a client can see: their records, results, the list, and the webhooks.

Lost: a job that was accepted and is unknown afterwards, or ended otherwise than it had to, or whose webhook never came
or told of another end. Doubled: two jobs of one Idempotency-Key, a part counted twice in a job's usage or result, two
webhook ids for one event, or webhooks of two ends. That a part was begun twice is no fault: only an effect that is
there twice is. Stuck: not at its end in time.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx

from bench.faults.mix import Accepted
from tests.servers import Web

_AT_ONCE = 4  #: jobs that are read
_TERMINAL = ("completed", "failed", "cancelled", "expired")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one round did, and how long after the fault its jobs had ended; `why` names each job at fault."""

    lost: int
    doubled: int
    stuck: int
    recovery_s: float
    why: tuple[str, ...] = ()


class Judge:
    """Reads every accepted job until it has ended, for at most `bound` seconds."""

    def __init__(self, http: httpx.Client, receiver: Web, *, bound: float, excused: Sequence[str] = ()) -> None:
        self._http = http
        self._receiver = receiver
        self._bound = bound
        self._excused = excused

    def __call__(self, accepted: Sequence[Accepted], *, fault_at: float) -> Verdict:
        """Judge the jobs; `fault_at` is when the fault was over (`time.monotonic`), from which recovery counts."""
        deadline = time.monotonic() + self._bound
        ids = [job.id for job in accepted]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            jobs = dict(zip(ids, pool.map(lambda job_id: self._ended(job_id, deadline), ids), strict=True))
        recovered = self._last_end(jobs, accepted, fault_at)
        stuck = [f"stuck {i} {_word(job)}" for i, job in jobs.items() if job and job["status"] not in _TERMINAL]
        ended = [(one, job) for one in accepted if (job := jobs[one.id]) and job["status"] in _TERMINAL]
        lost = [f"lost {i}: unknown" for i, job in jobs.items() if job is None]
        lost += [f"lost {one.id}: {_word(job)}" for one, job in ended if not self._as_it_must(one, job)]
        lost += [f"lost {i}: no webhook" for i in self._without_webhook({one.id for one, _ in ended}, deadline)]
        lost += [f"lost {one.id}: told otherwise than {_word(job)}" for one, job in ended if self._misled(job)]
        counts = [(one.id, one.kind.parts, _counts(one, job)) for one, job in ended if self._is_whole(job)]
        lost += [f"lost {i}: parts {found} of {parts}" for i, parts, found in counts if min(found) < parts]
        doubled = [f"doubled {i}: parts {found} of {parts}" for i, parts, found in counts if max(found) > parts]
        doubled += [*self._twice_accepted(accepted), *self._twice_told()]
        return Verdict(len(lost), len(doubled), len(stuck), recovered, (*lost, *doubled, *stuck))

    def _ended(self, job_id: str, deadline: float) -> dict[str, Any] | None:
        """The job when it has ended, or as it is at the deadline; None when nobody knows it."""
        while True:
            try:
                response = self._http.get(f"/v1/jobs/{job_id}", params={"wait": 5})
            except httpx.TransportError:
                response = httpx.Response(503)
            job: dict[str, Any] = response.json() if response.status_code == 200 else {"status": response.status_code}
            if response.status_code in (404, 410):
                return None
            if job["status"] in _TERMINAL or time.monotonic() > deadline:
                return job
            time.sleep(0.02 if response.status_code == 200 else 0.3)

    def _as_it_must(self, one: Accepted, job: dict[str, Any]) -> bool:
        return job["status"] == one.kind.ends or (job.get("error") or {}).get("code") in self._excused

    def _is_whole(self, job: dict[str, Any]) -> bool:
        """Whether every part must be there: the job completed, and no page has an excuse."""
        pages = (job.get("result") or {}).get("pages", [])
        excused = [page for page in pages if page.get("error", {}).get("code") in self._excused]
        return job["status"] == "completed" and not excused

    def _last_end(self, jobs: dict[str, dict[str, Any] | None], accepted: Sequence[Accepted], fault_at: float) -> float:
        """Seconds from the fault's end to the end of the last job that had been accepted by then."""
        before = [jobs[one.id] for one in accepted if one.at <= fault_at]
        ends = [_ended_at(job) for job in before if job and job.get("started_at")]
        over = time.time() - (time.monotonic() - fault_at)
        return round(max([0.0, *(end - over for end in ends)]), 1)

    def _without_webhook(self, ended: set[str], deadline: float) -> set[str]:
        while (left := ended - {job for job, event in self._told() if event != "job.started"}) and (
            time.monotonic() < deadline
        ):
            time.sleep(0.1)
        return left

    def _misled(self, job: dict[str, Any]) -> bool:
        """Whether its webhook told of another end."""
        told = {event for one, event in self._told() if one == job["id"]} - {"job.started"}
        return bool(told) and f"job.{job['status']}" not in told

    def _told(self) -> dict[tuple[str, str], set[str]]:
        """The webhook ids of each event of each job."""
        told: dict[tuple[str, str], set[str]] = defaultdict(set)
        for request in tuple(self._receiver.seen):
            body = json.loads(request.body)
            told[body["job"]["id"], body["event"]].add(request.headers["webhook-id"])
        return told

    def _twice_told(self) -> Iterator[str]:
        told = self._told()
        yield from (f"doubled {job}: {event} told as two" for (job, event), ids in told.items() if len(ids) > 1)
        ends = Counter(job for job, event in told if event != "job.started")
        yield from (f"doubled {job}: {count} ends told" for job, count in ends.items() if count > 1)

    def _twice_accepted(self, accepted: Sequence[Accepted]) -> Iterator[str]:
        """Jobs that the service has beside the accepted ones: one key led to two of them."""
        numbers = Counter(job["metadata"].get("number") for job in self._all())
        yield from (f"doubled {number}: {count} jobs of one key" for number, count in numbers.items() if count > 1)
        ids = Counter(one.id for one in accepted)
        yield from (f"doubled {job}: given to two keys" for job, count in ids.items() if count > 1)

    def _all(self) -> Iterator[dict[str, Any]]:
        after = ""
        while True:
            page = self._http.get("/v1/jobs", params={"limit": 100, "after": after} if after else {"limit": 100})
            body = page.raise_for_status().json()
            yield from body["data"]
            if not body["has_more"]:
                return
            after = body["last_id"]


def _counts(one: Accepted, job: dict[str, Any]) -> list[int]:
    """How often its parts are there: in the progress, the usage and the result."""
    counts = [job["progress"]["completed"], job["progress"]["total"]]
    if one.kind.type == "ocr":
        pages = job["result"]["pages"]
        counts += [job["usage"]["pages"], len(pages), len({p["index"] for p in pages if "error" not in p})]
    elif one.kind.type == "vqa":
        counts.append(job["usage"]["pages"] // len(one.kind.files))
    return counts


def _ended_at(job: dict[str, Any]) -> float:
    """The end in Unix seconds; records tell whole ones, so it may be up to one second earlier."""
    return float(job["completed_at"] + 1 if job["completed_at"] else time.time())


def _word(job: dict[str, Any]) -> str:
    return f"{job['status']} {(job.get('error') or {}).get('code', '')}".strip()
