"""Machines whose clocks are an hour off cost nothing: what is due when, and how old something is, Redis' clock says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
import time_machine
from standardwebhooks import Webhook

from phi4.store import Store
from tests.conftest import Service, eventually, make_service
from tests.keyed_app import JOB, make_app
from tests.making_jobs import raw
from tests.scripted_jobs import parts, prompted
from tests.servers import Web, web

HOUR_S = 3_600
NAMES = {"api": ("api",), "side": ("worker", "side"), "infer": ("worker", "infer")}


@pytest.fixture(scope="module")
def movable(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose processes have clocks that can be moved (`disagree`)."""
    url = valkey.removesuffix("/0") + "/2"
    Store.at(url).client.flushdb()
    service = make_service(url, tmp_path_factory.mktemp("clocks"))
    disagree(service, HOUR_S)
    for name, module in NAMES.items():
        env = {"PHI4_METRICS_PORT": "0", "PHI4_ENGINE": "tests.engines:Scripted"}
        service.start(name, "tests.moved_clock", str(service.data_dir / f"{name}.clock"), *module, **env)
    try:
        eventually(service.is_ready, seconds=60, what="readiness")
        yield service
    finally:
        codes = service.stop_all()
        service.http.close()
    assert codes == dict.fromkeys(codes, 0)


def disagree(service: Service, seconds: int) -> None:
    """Put the workers' clocks so far off, and the API's as far to the other side."""
    for name in NAMES:
        (service.data_dir / f"{name}.clock").write_text(str(-seconds if name == "api" else seconds))


def clock_of_api(service: Service) -> float:
    """What the API takes for the time (Unix seconds)."""
    return parsedate_to_datetime(service.http.get("/livez").headers["Date"]).timestamp()


@pytest.fixture
def receiver() -> Iterator[Web]:
    """A receiver of webhooks whose clock is right."""
    with web() as running:
        yield running


@pytest.mark.parametrize("off", [HOUR_S, -HOUR_S], ids=["workers ahead", "workers behind"])
def test_jobs_run_once_and_deadlines_fire_when_they_should(movable: Service, receiver: Web, off: int) -> None:
    """Leases hold, nobody is stopped before the time or kept after it, and every time that is told is Redis'."""
    service, redis = movable, raw(Store.at(movable.redis_url))
    disagree(service, off)
    eventually(lambda: abs(clock_of_api(service) - redis.time()[0] + off) < HOUR_S / 2, what="the move of the clocks")
    began_s, _ = redis.time()
    longer_than_a_lease = prompted(service, "sleep 4", cancel_after=1_800, webhook_url=receiver.url)
    too_long = prompted(service, "sleep 60", cancel_after=2)

    stopped, done = service.ended(too_long), service.ended(longer_than_a_lease)

    assert (stopped["status"], stopped["error"]["code"]) == ("cancelled", "deadline_exceeded")
    assert 2 <= stopped["completed_at"] - stopped["created_at"] < 30
    assert (done["status"], done["attempts"]) == ("completed", 1)
    assert [part["retries"] for part in parts(service, longer_than_a_lease)] == [0]
    assert "unit put back" not in service.output("side")
    for job in (stopped, done):
        assert began_s <= job["created_at"] <= job["started_at"] <= job["completed_at"] <= redis.time()[0]
        assert all(0 <= ms < 60_000 for ms in job["timings"].values())
    [request] = eventually(lambda: receiver.seen, what="the webhook")
    assert abs(int(request.headers["webhook-timestamp"]) - redis.time()[0]) < 60
    event = Webhook(service.env["PHI4_WEBHOOK_SECRET"]).verify(request.body, request.headers)
    assert began_s <= event["created_at"] <= redis.time()[0]


def test_lists_are_in_order_whatever_the_clocks(store: Store, tmp_path: Path) -> None:
    """Of jobs that came through machines whose clocks differ."""
    client, made = make_app(store, tmp_path).test_client(), []
    for off in (0, HOUR_S, -HOUR_S, 0):
        with time_machine.travel(time.time() + off):
            made.append(client.post("/v1/jobs", json=JOB).get_json()["id"])
        time.sleep(0.002)  # ids are ordered by the millisecond

    assert [job["id"] for job in client.get("/v1/jobs").get_json()["data"]] == made[::-1]
