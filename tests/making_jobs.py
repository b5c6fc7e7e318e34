"""Makes jobs, takes them through the store's steps, and checks what must hold of the store after any of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from phi4.errors import Cancelled, LeaseLost, WorkerLost
from phi4.job import Input, Job, NewJob, Part, Unit, error_json, new_id
from phi4.store import Hook, Reaped, Store
from phi4.store.keys import PATTERNS, key
from phi4.store.work import Outcome, Reported
from tests.conftest import eventually

VISION = "infer.vision.normal"
WORKER = "w1"
#: Long enough to run out in no test.
LONG_MS = 60_000
DONE = Outcome(out="answer", usage={"pages": 1}, engine="scripted", model="m")
FAILED = Outcome(error={"code": "engine_failed", "message": "It failed."})
DEATHS = 3


def raw(store: Store) -> Any:
    """The store's Redis itself, to look at what is in it, and to bend it."""
    return store.client


def new_job(owner: str = "local", **fields: Any) -> NewJob:
    """A job of type `ocr` with one stored input."""
    return NewJob(
        **{
            "id": new_id("job"),
            "owner": owner,
            "type": "ocr",
            "params": {"format": "markdown"},
            "inputs": (Input(blob="b/input-0", filename="a.png", bytes=3),),
            "priority": "normal",
        }
        | fields
    )


def submit(store: Store, owner: str = "local", **fields: Any) -> NewJob:
    """Submit a job; nothing has looked at it yet."""
    job = new_job(owner, **fields)
    store.jobs.submit(job, most_waiting=10_000)
    return job


def claim(store: Store, queue: str = VISION, *, worker: str = WORKER, lease_ms: int = LONG_MS) -> Unit:
    """Take the next unit of a queue that has one."""
    unit = store.work.claim(queue, worker, lease_ms)
    assert unit is not None, f"{queue} has nothing"
    return unit


def plan(store: Store, prepare: Unit, parts: int, *, first: int = 0, sealed: bool = True, pages: int = 1) -> Reported:
    """Add parts to a job, each of so many pages."""
    specs: list[dict[str, Any]] = [{"input": 0, "page": first + n + 1} for n in range(parts)]
    if pages > 1:
        specs = [{"images": [spec] * pages} for spec in specs]
    return store.work.plan(prepare, specs, first=first, sealed=sealed, worker=WORKER, lease_ms=LONG_MS)


def prepared(store: Store, parts: int = 1, owner: str = "local", **fields: Any) -> NewJob:
    """Submit a job and add its parts; no other job may be waiting for its preparation."""
    job = submit(store, owner, **fields)
    plan(store, claim(store, "prepare"), parts)
    return job


def complete(store: Store, part: Unit, outcome: Outcome = DONE) -> Unit | None:
    """Report a part; gives the job's finishing when it fell to this report."""
    return store.work.complete(part, outcome, WORKER, LONG_MS).finish


#: Where a job may be; `cancelled` and `completed` are its end.
MOMENTS = (
    "queued",
    "preparing",
    "prepared",
    "running",
    "finishing",
    "finish waits",
    "cancelling",
    "cancelled",
    "completed",
)


def take_to(store: Store, moment: str, job: NewJob) -> Unit | None:
    """Take a job, which is the only one, on to one of `MOMENTS`; gives the unit that a worker holds or held last."""
    held = claim(store, "prepare") if moment != "queued" else None
    if held and moment != "preparing":
        plan(store, held, 3)
    if moment in ("running", "cancelling"):
        held = claim(store)
    if moment in ("finishing", "finish waits", "completed"):
        for _ in range(3):
            held = complete(store, claim(store))
        assert held is not None
    if held and moment == "finish waits":
        store.work.put_back(held, counts=False)
    if held and moment == "completed":
        store.work.end(held, "completed", result="r")
    if moment in ("cancelling", "cancelled"):
        store.jobs.cancel(job.id, Cancelled())
    return held


def finished(store: Store, parts: int = 1, owner: str = "local", **fields: Any) -> NewJob:
    """Take a job all the way to `completed`."""
    job = prepared(store, parts, owner, **fields)
    finish = None
    for _ in range(parts):
        finish = complete(store, claim(store))
    assert finish is not None
    store.work.end(finish, "completed", result=f"{job.id}/result.json")
    return job


def read(store: Store, job: NewJob) -> Job:
    """Read a job that must be there."""
    found = store.jobs.find(job.id)
    assert found is not None
    return found


def reap(store: Store) -> Reaped:
    """Do one round of reaping."""
    return store.work.reap(max_deaths=DEATHS)


def reap_until(store: Store, holds: Callable[[Reaped], Any]) -> Reaped:
    """Reap until a round did what is waited for; gives that round."""

    def one_round() -> Reaped | None:
        reaped = reap(store)
        return reaped if holds(reaped) else None

    found: Reaped = eventually(one_round, what="the reaper's work")
    return found


def lose_lease(store: Store, unit: Unit) -> None:
    """Let a lease end now, as if its worker had died that long ago."""
    raw(store).zadd(key("leases"), {unit.member: 1}, xx=True)
    assert f"{unit.job.id}|{unit.name}" in [f"{job}|{name}" for job, name, _ in reap(store).put_back]


def nothing_waits(store: Store) -> bool:
    """Whether every queue and its counter is empty."""
    claimed = [store.work.claim(queue, WORKER, LONG_MS) for queue in ("prepare", VISION)]
    return claimed == [None, None] and store.work.waiting() == {}


def snapshot(store: Store, job: NewJob) -> tuple[Job, list[Part]]:
    """All that can be read of a job."""
    found = read(store, job)
    return found, store.jobs.parts(found)


def take_hook(store: Store, lease_ms: int = LONG_MS) -> Hook | None:
    """Take the webhook delivery that is due, if any, however many are under way."""
    return store.hooks.take(lease_ms, per_host=100, per_owner=100)


def scheduled(store: Store) -> dict[str, float]:
    """The webhook deliveries that are not over, by name, and when each is due."""
    hosts = raw(store).zrange(key("hook_hosts"), 0, -1)
    return {name: due for host in hosts for name, due in raw(store).zrange(key("hooks", host), 0, -1, withscores=True)}


def make_due(store: Store, url: str) -> None:
    """Let the time pass until all deliveries to a receiver are due."""
    host = urlsplit(url).netloc
    for name in raw(store).zrange(key("hooks", host), 0, -1):
        raw(store).zadd(key("hooks", host), {name: 1})
    raw(store).zadd(key("hook_hosts"), {host: 1})


def _reports_on(store: Store, unit: Unit) -> list[Any]:
    """Every way to report on a unit, as calls."""
    return [
        lambda: store.work.complete(unit, DONE, WORKER, LONG_MS),
        lambda: store.work.complete(unit, FAILED, WORKER, LONG_MS),
        lambda: store.work.put_back(unit, counts=True),
        lambda: store.work.put_back(unit, counts=False),
        lambda: store.work.end(unit, "completed", result="other"),
        lambda: store.work.end(unit, "failed", error=error_json(WorkerLost(), "run")),
        lambda: store.work.runs_alone(unit),
        lambda: plan(store, unit, 3),
    ]


def refused(store: Store, unit: Unit, job: NewJob) -> None:
    """Check that no report on a unit is taken, and that none changes anything."""
    before = snapshot(store, job) if store.jobs.find(job.id) else None
    for report in _reports_on(store, unit):
        with pytest.raises(LeaseLost):
            report()
    assert store.work.heartbeat([unit.member], LONG_MS) == ["lost"]
    assert (snapshot(store, job) if before else store.jobs.find(job.id)) == before
    check_store(store)


def check_store(store: Store) -> None:
    """Check what holds at every moment: counters are exact, each owner has one turn, all keys have an end."""
    ready = _ready(store)
    counted = {queue: sum(owners.values()) for queue, owners in ready.items()}
    counted["held"] = sum(_check_job(store, job_id) for job_id in _job_ids(store))
    backlog = {queue: int(n) for queue, n in raw(store).hgetall(key("backlog")).items()}
    assert backlog == dict.fromkeys(backlog, 0) | {q: n for q, n in counted.items() if n or q in backlog}
    for queue in backlog.keys() - {"held"}:
        ring = raw(store).lrange(key("ring", queue), 0, -1)
        assert sorted(ring) == sorted(ready.get(queue, {})), f"owners with work in {queue}, each once"
    _check_shares(store)
    assert [name for name in raw(store).keys("*") if raw(store).pttl(name) < 0] == [], "every key has an end"


def _check_shares(store: Store) -> None:
    """Check each share: what is in flight is counted exactly and never too much, and nobody waits without a reason."""
    records = [raw(store).hgetall(key("job", job_id)) for job_id in _job_ids(store)]
    for share in {record["share"] for record in records if record.get("share")}:
        mine = {record["id"]: record for record in records if record.get("share") == share}
        most = int(next(iter(mine.values()))["share_most"])
        used = sum(int(record.get("in_flight", 0)) for record in mine.values())
        assert used == int(raw(store).get(key("in_flight", share)) or 0)
        loads = [_loads(store, record) for record in mine.values()]
        assert used <= most or sum(len(busy) for busy, _ in loads) == 1, "only a part that is more than the share alone"
        waiting = raw(store).zrange(key("parked", share), 0, -1)
        assert all(mine[job_id]["added"] > mine[job_id]["admitted"] for job_id in waiting), "each has a part that waits"
        if waiting:
            assert used + _loads(store, mine[waiting[0]])[1][0] > most, "the first would fit"
        for job_id in mine.keys() - set(waiting):
            record = mine[job_id]
            has_window = int(record["ready"]) + int(record["running"]) < int(record["window"])
            assert not has_window or record["added"] == record["admitted"], f"{job_id} is let in or waits in turn"


def _loads(store: Store, record: dict[str, str]) -> tuple[list[int], list[int]]:
    """What a job's parts in flight take of its share, and what its held ones would."""
    units = raw(store).hgetall(key("units", record["id"]))
    load = [int(units[f"{n}.load"]) for n in range(int(record["added"]))]
    busy = [load[n] for n in range(len(load)) if units[f"{n}.state"] in ("ready", "running")]
    return busy, load[int(record["admitted"]) :]


def _ready(store: Store) -> dict[str, dict[str, int]]:
    """Queue -> owner -> how much waits."""
    found: dict[str, dict[str, int]] = {}
    for name in raw(store).keys(key("ready", "*", "*")):
        queue, owner = name.removeprefix(PATTERNS["ready"].split("{}")[0]).split(":", 1)
        found.setdefault(queue, {})[owner] = raw(store).zcard(name)
    return found


def _job_ids(store: Store) -> list[str]:
    prefix = PATTERNS["job"].removesuffix("{}")
    return [name.removeprefix(prefix) for name in raw(store).keys(prefix + "*")]


def _check_job(store: Store, job_id: str) -> int:
    """Check one job's counters; gives how many of its parts are held outside its window."""
    record = raw(store).hgetall(key("job", job_id))
    if "queue" not in record:  # a tombstone counts nothing
        return 0
    number = {name: int(record[name]) for name in ("ready", "running", "done", "failed", "window", "added", "admitted")}
    units = raw(store).hgetall(key("units", job_id))
    states = [units[f"{n}.state"] for n in range(number["added"])]
    assert {s: states.count(s) for s in ("ready", "running", "done", "failed")} == {
        s: number[s] for s in ("ready", "running", "done", "failed")
    }
    assert number["ready"] + number["running"] <= number["window"]
    load = sum(int(units[f"{n}.load"]) for n, state in enumerate(states) if state in ("ready", "running"))
    assert int(record.get("in_flight", 0)) == (load if record["share"] else 0)
    return number["added"] - number["admitted"]
