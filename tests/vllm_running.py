"""The service with a vLLM worker on the tiny checkpoint, as processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from cli.embedded import free_port
from phi4.store import Store
from tests.conftest import ROOT, Service, eventually, make_service
from tests.vllm_on_cpu import worker_environment

#: vLLM takes a quarter of a minute to start here, longer beside other work.
_START_S = 240.0


@contextmanager
def vllm_running(redis_url: str, checkpoint: Path, data_dir: Path) -> Iterator[Service]:
    """Run API, side worker and a vLLM worker; a block that ends the worker starts another."""
    Store.at(redis_url).client.flushdb()
    own = {"WORKER_METRICS_PORT": str(free_port())}
    service = make_service(redis_url, data_dir, **worker_environment(checkpoint), **own)
    try:
        service.start("api", "api")
        service.start("side", "worker", "side", PHI4_METRICS_PORT="0")
        eventually(lambda: _answers(service), what="the API's first answer")
        start_worker(service)
        yield service
    finally:
        codes = service.stop_all()
        service.http.close()
    assert codes == {"api": 0, "side": 0, "infer": 0}


def start_worker(service: Service) -> subprocess.Popen[bytes]:
    """Start the worker in a process group of its own, as a supervisor does, and wait until it serves."""
    with (service.data_dir / "infer.log").open("ab") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "worker", "infer"],
            env=service.env | {"PHI4_METRICS_PORT": service.env["WORKER_METRICS_PORT"], "PHI4_ENGINE": "vllm"},
            cwd=ROOT,
            stdout=log,
            stderr=log,
            process_group=0,
        )
    service.processes["infer"] = worker
    eventually(
        lambda: worker.poll() is not None or "ready" in stages(service, worker), seconds=_START_S, what="readiness"
    )
    assert worker.poll() is None, service.output("infer")[-3_000:]
    return worker


def stages(service: Service, worker: subprocess.Popen[bytes]) -> list[str]:
    """What /health says of a worker."""
    workers = service.http.get("/health").json()["workers"]
    return [w["stage"] for w in workers if f"-{worker.pid}-" in w["name"]]


def _answers(service: Service) -> bool:
    try:
        return service.http.get("/livez").status_code == 200
    except httpx.TransportError:
        return False
