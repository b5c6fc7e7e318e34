"""Shared fixtures: a real Valkey, the store on it, and the whole service as processes around a scripted engine."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from PIL import Image

from cli.embedded import EmbeddedValkey, free_port
from phi4.store import Store
from tests.tiny_phi4 import PLUGIN, environment

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.browser import Tab
    from tests.recordings import Sound
    from tests.s3 import S3
    from worker.engines.vllm import VllmEngine

ROOT = Path(__file__).parent.parent


def eventually(holds: Callable[[], Any], *, seconds: float = 20.0, what: str = "it") -> Any:
    """Wait until a call gives something true, and return that."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if value := holds():
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {seconds} s")


def png(width: int = 320, height: int = 200, colour: str = "white") -> bytes:
    """A small picture."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "PNG")
    return file.getvalue()


def pdf(pages: int) -> bytes:
    """A document of empty pages."""
    file = io.BytesIO()
    images = [Image.new("L", (200 + n, 300), "white") for n in range(pages)]
    images[0].save(file, "PDF", save_all=True, append_images=images[1:])
    return file.getvalue()


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real Valkey that lives as long as the test run."""
    embedded = EmbeddedValkey(tmp_path_factory.mktemp("valkey"))
    with embedded:
        process = subprocess.Popen(embedded.child().argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually(embedded.answers, what="Valkey's first answer")
        yield embedded.url
        process.terminate()
        process.wait(10)


@pytest.fixture
def store(valkey: str) -> Iterator[Store]:
    """An empty store, in a database of its own."""
    url = valkey.removesuffix("/0") + "/1"
    store = Store.at(url)
    store.client.flushdb()
    yield store
    store.client.close()


@pytest.fixture(scope="session")
def tiny_phi4(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A tiny checkpoint that vLLM loads, in this process and in those it starts; only where torch is installed."""
    from tests.tiny_phi4.make import make_tiny

    folder = tmp_path_factory.mktemp("phi4") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(folder).items():
            patch.setenv(name, value)
        patch.syspath_prepend(PLUGIN)
        yield make_tiny(folder)


@pytest.fixture(scope="session")
def tiny_native_phi4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint for transformers' own class; only where transformers is installed."""
    from tests.tiny_phi4.native import make_native_tiny

    return make_native_tiny(tmp_path_factory.mktemp("phi4") / "native")


@dataclass
class Service:
    """A running service and a client of it."""

    redis_url: str
    data_dir: Path
    env: dict[str, str]
    http: httpx.Client
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *module: str, **env: str) -> subprocess.Popen[bytes]:
        """Start one of its processes; its output goes to a file in the data folder."""
        log = (self.data_dir / f"{name}.log").open("ab")
        with log:
            process = subprocess.Popen(
                [sys.executable, "-m", *module], env=self.env | env, cwd=ROOT, stdout=log, stderr=log
            )
        self.processes[name] = process
        return process

    def start_all(self, engine: str) -> None:
        """Start the API and both workers, and wait until a job would be worked on."""
        self.start("api", "api")
        self.start("side", "worker", "side", PHI4_METRICS_PORT="0")
        self.start("infer", "worker", "infer", PHI4_METRICS_PORT="0", PHI4_ENGINE=engine)
        eventually(self.is_ready, seconds=60, what="readiness")

    def is_ready(self) -> bool:
        """Whether /readyz says so."""
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def stop_all(self) -> dict[str, int]:
        """SIGTERM to each process; returns their exit codes."""
        for process in self.processes.values():
            process.terminate()
        return {name: process.wait(30) for name, process in self.processes.items()}

    def output(self, name: str) -> str:
        """What a process has written."""
        return (self.data_dir / f"{name}.log").read_text()

    def submit(self, type: str = "ocr", file: bytes | None = None, **fields: Any) -> httpx.Response:
        """POST a job with one file, a small picture by default."""
        files = [("file", ("input", png() if file is None else file))]
        return self.http.post("/v1/jobs", data={"type": type, **fields}, files=files)

    def job(self, job_id: str, wait: int = 0) -> dict[str, Any]:
        """GET a job."""
        response = self.http.get(f"/v1/jobs/{job_id}", params={"wait": wait} if wait else {})
        assert response.status_code == 200, response.text
        return dict(response.json())

    def ended(self, job_id: str, seconds: float = 30.0) -> dict[str, Any]:
        """Wait for a job's end."""
        terminal = ("completed", "failed", "cancelled", "expired")
        return dict(
            eventually(
                lambda: (job := self.job(job_id, wait=5))["status"] in terminal and job,
                seconds=seconds,
                what=f"the end of {job_id}",
            )
        )


def make_service(redis_url: str, data_dir: Path, **env: str) -> Service:
    """A service that is not started yet."""
    port = free_port()
    settings = {
        "REDIS_URL": redis_url,
        "PORT": str(port),
        "PHI4_DATA_DIR": str(data_dir),
        "PHI4_METRICS_PORT": str(free_port()),
        "PHI4_WEBHOOK_SECRET": "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0",
        "PHI4_ALLOW_HOSTS": "127.0.0.1",
        "PHI4_MIN_FREE_DISK_MB": "0",
        "PHI4_REAP_SECONDS": "0.5",
        "PHI4_LEASE_SECONDS": "3",
        "PHI4_RESULT_CACHE": "0",  # tests send the same few files again and again
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    own = {k: v for k, v in os.environ.items() if not k.startswith("PHI4_") and k not in ("PORT", "REDIS_URL")}
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
    return Service(redis_url, data_dir, own | settings | env, client)


@pytest.fixture(scope="session")
def service(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The whole service with the scripted engine (tests/engines.py), shared by all tests; use jobs of your own."""
    service = make_service(valkey, tmp_path_factory.mktemp("service"))
    try:
        service.start_all("tests.engines:Scripted")
        yield service
    finally:
        codes = service.stop_all()
        service.http.close()
    assert codes == dict.fromkeys(codes, 0), "every process ends with 0 after SIGTERM"


@pytest.fixture(scope="session")
def cpu_service(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The whole service with the cpu engine, in a database of its own, shared by all tests that need what it reads."""
    service = make_service(valkey.removesuffix("/0") + "/13", tmp_path_factory.mktemp("cpu"))
    try:
        service.start_all("cpu")
        yield service
    finally:
        codes = service.stop_all()
        service.http.close()
    assert codes == dict.fromkeys(codes, 0)


@pytest.fixture(scope="session")
def vllm_engine(tiny_phi4: Path) -> Iterator[VllmEngine]:
    """The vLLM engine on the tiny checkpoint, started once; only where vLLM is installed."""
    from tests.vllm_on_cpu import settings
    from worker.engines.vllm import VllmEngine

    engine = VllmEngine(settings(tiny_phi4))
    engine.start(lambda _: None)
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def vllm_service(valkey: str, tiny_phi4: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The whole service with a vLLM worker on the tiny checkpoint; a test that ends the worker starts another."""
    from tests.vllm_running import vllm_running

    with vllm_running(valkey.removesuffix("/0") + "/9", tiny_phi4, tmp_path_factory.mktemp("vllm")) as service:
        yield service


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """A real server that speaks S3; take a path of your own in its bucket."""
    from tests.s3 import s3_server

    with s3_server() as server:
        yield server


@pytest.fixture(scope="session")
def speech() -> Sound:
    """Ten seconds of a man reading, with pauses of half a second to a second."""
    from tests.recordings import packaged

    return packaged("beckett.wav")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser, for tests of the web console."""
    from tests.browser import chromium

    with chromium() as browser:
        yield browser


@pytest.fixture
def read(browser: Browser, cpu_service: Service) -> Iterator[Tab]:
    """A tab on the service that really reads."""
    from tests.browser import tab

    with tab(browser, str(cpu_service.http.base_url)) as opened:
        opened.open()
        yield opened


@pytest.fixture
def play(browser: Browser, service: Service) -> Iterator[Tab]:
    """A tab on the service whose engine does what the question says."""
    from tests.browser import tab

    with tab(browser, str(service.http.base_url)) as opened:
        opened.open()
        yield opened


@pytest.fixture
def own_service(valkey: str, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Makes services that a test may break, each in a Redis database of its own."""
    made: list[Service] = []

    def make(engine: str = "tests.engines:Scripted", **env: str) -> Service:
        url = valkey.removesuffix("/0") + f"/{2 + len(made)}"
        Store.at(url).client.flushdb()
        service = make_service(url, tmp_path / str(len(made)), **env)
        service.data_dir.mkdir(parents=True)
        made.append(service)
        service.start_all(engine)
        return service

    yield make
    for service in made:
        for process in service.processes.values():
            process.kill()
            process.wait(10)
        service.http.close()
