"""An upgrade on the move: old and new workers on the same queues, records of another version, and mixed fleets."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from phi4.job import RECORD_VERSION, Input, Job
from phi4.store import Store, WorkerInfo
from phi4.store.keys import key
from tests.conftest import ROOT, Service, eventually, pdf
from tests.making_jobs import VISION, claim, prepared, raw
from tests.servers import Web, web

#: Three jobs as the first version of the service left them: one not looked at, two prepared and waiting for an engine.
FIRST = json.loads((ROOT / "tests" / "records" / "2026-11-first.json").read_text())


def live_workers(service: Service) -> set[str]:
    """The roles and process ids of the workers that are ready."""
    workers = service.http.get("/health").json()["workers"]
    return {w["name"].rpartition("-")[0] for w in workers if w["stage"] == "ready"}


def is_ready(service: Service, name: str, role: str) -> bool:
    """Whether a process that was started has announced itself as ready."""
    pid = service.processes[name].pid
    return any(w.startswith(f"{role}-") and w.endswith(f"-{pid}") for w in live_workers(service))


def submit_all(service: Service, count: int, receiver: Web) -> list[str]:
    """Submit jobs of three pages that take a while, each with a webhook."""
    params = json.dumps({"prompt": "sleep 0.3"})
    hook = {"webhook_url": f"{receiver.url}/hook"}
    return [service.submit(file=pdf(3), params=params, **hook).json()["id"] for _ in range(count)]


def test_workers_are_replaced_one_by_one_and_no_job_is_lost(own_service: Callable[..., Service]) -> None:
    """The new ones, a mixed fleet, start beside the old ones, which then get SIGTERM in the middle of their work."""
    service = own_service()
    infer = {"PHI4_ENGINE": "tests.engines:Scripted", "PHI4_METRICS_PORT": "0"}
    with web() as receiver:
        jobs = submit_all(service, 12, receiver)
        service.start("new-side", "worker", "side", PHI4_METRICS_PORT="0", PHI4_QUEUES="prepare,webhooks")
        service.start("new-vision", "worker", "infer", PHI4_QUEUES="infer.vision.normal", **infer)
        for name, role in (("new-side", "side"), ("new-vision", "infer")):
            eventually(lambda name=name, role=role: is_ready(service, name, role), seconds=60, what=name)
        jobs += submit_all(service, 12, receiver)
        codes = [stop(service, name) for name in ("infer", "side")]
        jobs += submit_all(service, 4, receiver)
        ended = [service.ended(job, seconds=60) for job in jobs]
        told = eventually(lambda: len(told := hooks(receiver)) >= len(jobs) and told, what="every webhook")

    assert codes == [0, 0]
    assert {e["status"] for e in ended} == {"completed"}
    assert all(len(e["result"]["pages"]) == 3 for e in ended)
    assert sorted(told) == sorted(jobs), "each job is told of once"
    assert len(live_workers(service)) == 2


def stop(service: Service, name: str) -> int:
    """SIGTERM; gives the exit code."""
    service.processes[name].terminate()
    return service.processes[name].wait(60)


def hooks(receiver: Web) -> list[str]:
    """The jobs that a receiver was told of."""
    return [json.loads(r.body)["job"]["id"] for r in receiver.seen]


def test_jobs_of_the_first_version_are_finished(own_service: Callable[..., Service]) -> None:
    """Records, parts and files as the first version wrote them, found by today's workers."""
    service = own_service()
    client = Store.at(service.redis_url).client
    for path, content in FIRST["blobs"].items():
        file = service.data_dir / "blobs" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(content))
    restore(client)
    jobs = [name.rpartition(":")[2] for name in FIRST["keys"] if name.startswith("phi4:job:")]
    ended = {job: service.ended(job) for job in jobs}

    assert {e["status"] for e in ended.values()} == {"completed"}
    assert sorted(e["type"] for e in ended.values()) == ["ocr", "ocr", "vqa"]


def restore(client: Any) -> None:
    """Write the first version's keys into Redis, with the times of today."""
    now_ms = int(client.time()[0] * 1000)
    for name, value in FIRST["keys"].items():
        if isinstance(value, list):
            client.rpush(name, *value)
        elif isinstance(value, str):
            client.set(name, value)
        elif name == "phi4:expiries":
            client.zadd(name, dict.fromkeys(value, now_ms + 3_600_000))
        elif name.startswith(("phi4:index", "phi4:ready")):
            client.zadd(name, value)
        else:
            moved = {
                f: str(now_ms + 3_600_000 * (f == "expires_ms")) for f in value if f in ("created_ms", "expires_ms")
            }
            client.hset(name, mapping=value | moved)


def test_a_record_with_fields_of_another_version_is_read(store: Store) -> None:
    """What is not known here is left alone, and what is missing is empty."""
    job = prepared(store, 2, webhook_url="http://a.test/")
    name = key("job", job.id)
    inputs = json.dumps([{"blob": "b/input-0", "colour": "red"}])
    raw(store).hset(name, mapping={"a_new_field": "1", "inputs": inputs})
    raw(store).hdel(name, "metadata", "traceparent", "share", "share_most", "retried_ms", "input_retention", "priority")
    unit = claim(store, VISION)

    assert unit.job.inputs == (Input(blob="b/input-0"),)
    assert (unit.job.metadata, unit.job.traceparent, unit.job.priority) == ({}, "", "normal")
    assert raw(store).hget(name, "a_new_field") == "1"


def test_a_job_of_a_newer_version_waits_for_a_newer_worker(store: Store) -> None:
    """It stays in its queue, and jobs of this version go on behind it."""
    newer, ours = prepared(store), prepared(store, owner="another")
    raw(store).hset(key("job", newer.id), "v", RECORD_VERSION + 1)
    claimed = [unit.job.id for _ in range(3) if (unit := store.work.claim(VISION, "w", 60_000))]

    assert claimed == [ours.id]
    assert store.work.waiting()[VISION] == 1


@pytest.mark.parametrize("more", [{}, {"zone": "b", "load": 0.5}])
def test_a_worker_of_a_newer_version_is_seen(store: Store, more: dict[str, Any]) -> None:
    """What it says of itself beyond what is known here is left out."""
    info = WorkerInfo("w1", ("prepare",), "ready")
    store.workers.announce(info)
    raw(store).set(key("worker", "w1"), json.dumps(asdict(info) | more))

    assert store.workers.alive() == [info]


def test_a_key_of_a_newer_version_is_known(store: Store) -> None:
    """As are its limits, those that are known here."""
    _, made = store.access.create("n", "acme", requests_per_minute=5)
    raw(store).hset(key("api_keys"), made.id, json.dumps(asdict(made) | {"regions": ["eu"]}))

    assert store.access.keys()[made.id] == made


def test_the_least_that_a_record_can_be(store: Store) -> None:
    """A tombstone: who, what, and how it ended."""
    job = Job.from_record({"id": "job_1", "owner": "local", "type": "ocr", "status": "expired"})

    assert (job.inputs, job.params, job.usage, job.error) == ((), {}, {}, None)
