"""What happens to jobs when a process is killed, asked to stop, or gone for a while."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from cli.embedded import EmbeddedValkey
from tests.conftest import Service, eventually, make_service, png
from tests.scripted_jobs import accepted, logged, parts, prompted, running
from tests.servers import Reply, Request, web

ENGINE = "tests.engines:Scripted"
#: What a worker whose engine died ends with.
ENGINE_DIED = 70


@dataclass
class Fragile:
    """A service of its own, with a Valkey of its own, whose processes a test may kill and must start again."""

    service: Service
    valkey: EmbeddedValkey

    def start_valkey(self) -> None:
        """Start the server on its data, as its supervisor would."""
        argv = self.valkey.child().argv
        self.service.processes["valkey"] = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually(self.valkey.answers, what="Valkey's answer")

    def start(self, name: str) -> None:
        """Start one of the others."""
        argv, env = {
            "api": (("api",), {}),
            "side": (("worker", "side"), {"PHI4_METRICS_PORT": "0"}),
            "infer": (("worker", "infer"), {"PHI4_METRICS_PORT": "0", "PHI4_ENGINE": ENGINE}),
        }[name]
        self.service.start(name, *argv, **env)

    def kill(self, name: str) -> None:
        """Kill a process as the kernel does when memory runs out."""
        self.service.processes[name].kill()
        self.service.processes[name].wait(10)

    def stop(self, name: str) -> int:
        """Ask a process to stop; gives its exit code."""
        self.service.processes[name].terminate()
        return self.service.processes[name].wait(30)

    @contextmanager
    def supervised(self, name: str) -> Iterator[list[int]]:
        """Start a process again whenever it ends; gives the exit codes it ended with."""
        over, codes = threading.Event(), list[int]()

        def watch() -> None:
            while not over.wait(0.05):
                if (code := self.service.processes[name].poll()) is not None:
                    codes.append(code)
                    self.start(name)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield codes
        finally:
            over.set()
            thread.join()

    def mend(self) -> None:
        """Start whatever a test has left dead."""
        for name, process in tuple(self.service.processes.items()):
            if process.poll() is not None:
                self.start_valkey() if name == "valkey" else self.start(name)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fragile]:
    """All processes; a lease lasts two seconds, and a part that ends its worker alone twice is given up."""
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as valkey:
        soon = {"PHI4_LEASE_SECONDS": "2", "PHI4_HEARTBEAT_SECONDS": "0.2", "PHI4_REAP_SECONDS": "0.2"}
        service = make_service(valkey.url, tmp_path_factory.mktemp("fragile"), PHI4_MAX_DEATHS="2", **soon)
        fragile = Fragile(service, valkey)
        try:
            fragile.start_valkey()
            service.start_all(ENGINE)
            yield fragile
        finally:
            for name in ("api", "side", "infer", "valkey"):
                if name in service.processes:
                    fragile.kill(name)
            service.http.close()


@pytest.fixture
def fragile(processes: Fragile) -> Fragile:
    """The same, all of them up."""
    processes.mend()
    return processes


def test_a_killed_worker_costs_its_parts_not_the_job(fragile: Fragile) -> None:
    """When its lease has run out, the part is put back, and the next worker does it."""
    service = fragile.service
    job_id = prompted(service, "sleep 2", pages=2)
    eventually(lambda: [p["state"] for p in parts(service, job_id)] == ["running"] * 2, what="two parts running")

    fragile.kill("infer")
    fragile.start("infer")

    job = service.ended(job_id)
    assert (job["status"], job["attempts"], job["progress"]["completed"]) == ("completed", 1, 2)
    assert {line["unit"] for line in logged(service, "side", "unit put back", job_id)} == {"0", "1"}


def test_a_worker_that_is_asked_to_stop_finishes_its_parts(fragile: Fragile) -> None:
    """SIGTERM: what runs is finished, what waits is left to others, and the exit code is 0."""
    service = fragile.service
    job_id = running(service, prompted(service, "sleep 1.5"))

    assert fragile.stop("infer") == 0

    assert service.job(job_id)["status"] == "completed"
    later = prompted(service, "read")
    assert service.job(later)["status"] == "queued"
    fragile.start("infer")
    assert service.ended(later)["status"] == "completed"


def test_a_worker_whose_engine_dies_gives_its_parts_back(fragile: Fragile) -> None:
    """It ends with a code of its own at once, and no part that ran beside the fatal one is lost or blamed."""
    service = fragile.service
    bystander = running(service, prompted(service, "sleep 2"))
    fatal = prompted(service, "die")

    assert service.processes["infer"].wait(30) == ENGINE_DIED

    service.http.post(f"/v1/jobs/{fatal}/cancel")
    fragile.start("infer")
    assert service.ended(bystander)["status"] == "completed"
    assert service.ended(fatal)["status"] == "cancelled"


@pytest.mark.parametrize(("words", "code"), [("exit", 9), ("die", ENGINE_DIED)], ids=["worker", "engine"])
def test_a_part_that_ends_every_worker_is_given_up(fragile: Fragile, words: str, code: int) -> None:
    """Suspects run alone, so that it is found out; the others complete, and the worker stays up from then on."""
    service = fragile.service
    with fragile.supervised("infer") as codes:
        bystanders = [running(service, prompted(service, "sleep 1", pages=2)) for _ in range(2)]
        poison = prompted(service, words)
        job = service.ended(poison, seconds=60)
        others = [service.ended(job_id, seconds=60) for job_id in bystanders]

    assert (job["status"], job["error"]["code"], job["error"]["retryable"]) == ("failed", "worker_lost", False)
    assert [other["status"] for other in others] == ["completed", "completed"]
    assert codes == [code] * 3, "once beside others, then twice alone"
    assert service.ended(prompted(service, "read"))["status"] == "completed"


def test_a_preparation_that_was_killed_is_done_again(fragile: Fragile) -> None:
    """Its lease runs out as that of any other work, and the next side worker begins anew."""
    service, over = fragile.service, threading.Event()

    def slow_at_first(_: Request) -> Reply:
        if len(server.seen) == 1:
            over.wait(60)
        return Reply(body=png())

    with web() as server:
        server.answer = slow_at_first
        response = service.http.post("/v1/jobs", json={"type": "ocr", "input": {"url": server.url}})
        job_id = accepted(response)["id"]
        eventually(lambda: server.seen, what="the fetch")

        fragile.kill("side")
        over.set()
        fragile.start("side")

        assert service.ended(job_id)["status"] == "completed"


def test_jobs_outlive_the_api(fragile: Fragile) -> None:
    """A new API process knows every job, and what ran went on in the meantime."""
    service = fragile.service
    ended = service.ended(prompted(service, "read", metadata='{"a": "b"}'))
    job_id = running(service, prompted(service, "sleep 1"))

    assert fragile.stop("api") == 0
    fragile.start("api")

    eventually(service.is_ready, what="the API's return")
    assert service.job(ended["id"]) == ended
    assert service.ended(job_id)["status"] == "completed"


def test_jobs_outlive_redis(fragile: Fragile) -> None:
    """While it is gone the API says so; when it is back, the same processes go on and nothing was lost."""
    service = fragile.service
    ended = service.ended(prompted(service, "read"))
    job_id = running(service, prompted(service, "sleep 1.5"))

    fragile.kill("valkey")
    refused = [service.http.get(f"/v1/jobs/{job_id}"), service.submit(), service.http.get("/readyz")]
    fragile.start_valkey()

    assert [(r.status_code, r.json()["code"]) for r in refused] == [(503, "store_unavailable")] * 3
    assert all(int(r.headers["Retry-After"]) > 0 for r in refused)
    assert service.job(ended["id"]) == ended
    assert service.ended(job_id)["status"] == "completed"
    assert service.ended(prompted(service, "read"))["status"] == "completed"
    assert {name: process.poll() for name, process in service.processes.items()} == dict.fromkeys(service.processes)
