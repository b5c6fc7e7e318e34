"""`phi4 up` and `phi4 demo`: the whole service as one command runs it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from cli.embedded import free_port
from tests.conftest import ROOT, eventually, png

PHI4 = [sys.executable, "-c", "from cli.main import app; app()"]


class Up:
    """A running `phi4 up`."""

    def __init__(self, data_dir: Path, **settings: str) -> None:
        self.port = free_port()
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)
        self.output = data_dir.with_suffix(".log")
        env = {k: v for k, v in os.environ.items() if not k.startswith("PHI4_") and k not in ("PORT", "REDIS_URL")}
        own = {
            "PORT": str(self.port),
            "PHI4_DATA_DIR": str(data_dir),
            "PHI4_ENGINE": "tests.engines:Scripted",
            "PHI4_METRICS_PORT": "0",
            "PHI4_MIN_FREE_DISK_MB": "0",
            "PHI4_LEASE_SECONDS": "2",
        }
        with self.output.open("ab") as log:
            self.process = subprocess.Popen(
                [*PHI4, "up"], env=env | own | settings, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
            )

    def is_ready(self) -> bool:
        """Whether a job sent now is worked on; fails at once when the command has ended."""
        assert self.process.poll() is None, self.output.read_text()
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def listening(self) -> list[psutil.Process]:
        """The processes that listen on the service's port."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if self.port in _ports(child)]

    def submit(self, prompt: str = "") -> str:
        """POST a job; returns its id."""
        params = json.dumps({"prompt": prompt} if prompt else {})
        response = self.http.post("/v1/jobs", data={"type": "ocr", "params": params}, files=[("file", ("x", png()))])
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    def status(self, job_id: str) -> str:
        """The status of a job."""
        return str(self.http.get(f"/v1/jobs/{job_id}").json()["status"])

    def worker(self, role: str = "infer") -> psutil.Process:
        """The process that holds the engine, or prepares jobs (`side`)."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return next(p for p in children if p.cmdline()[-2:] == ["worker", role])

    def stop(self, number: int = signal.SIGINT) -> int:
        """Send a signal and give the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(40)
        self.http.close()
        return code


def _ports(process: psutil.Process) -> set[int]:
    """The ports a process listens on; none when it is gone."""
    try:
        return {one.laddr.port for one in process.net_connections() if one.status == psutil.CONN_LISTEN}
    except psutil.Error:
        return set()


def _session_nice(process: psutil.Process) -> str | None:
    """How nice a process' session is as a whole; None where the kernel does not share cores out by session."""
    group = Path(f"/proc/{process.pid}/autogroup")
    return group.read_text().split()[-1] if group.exists() else None


@pytest.fixture
def running(tmp_path: Path) -> Iterator[list[Up]]:
    """Takes what a test has started, and ends it."""
    started: list[Up] = []
    yield started
    for up in started:
        up.http.close()
        if up.process.poll() is None:
            up.process.kill()
            up.process.wait(10)


def start(running: list[Up], data_dir: Path, **settings: str) -> Up:
    """Start `phi4 up` and wait until it is ready."""
    up = Up(data_dir, **settings)
    running.append(up)
    eventually(up.is_ready, seconds=60, what="readiness")
    return up


def test_a_job_runs_and_its_record_survives_a_restart(running: list[Up], tmp_path: Path) -> None:
    """Ctrl-C drains and ends with 0; the next `up` on the same folder still has the job and its result."""
    first = start(running, tmp_path / "data")
    job = first.submit()
    eventually(lambda: first.status(job) == "completed", what="the job's end")
    assert first.stop() == 0

    second = start(running, tmp_path / "data")

    assert second.http.get(f"/v1/jobs/{job}/result").json()["text"] == "page 320x200"
    assert second.stop(signal.SIGTERM) == 0


def test_ctrl_c_lets_a_running_part_end(running: list[Up], tmp_path: Path) -> None:
    """A part under way at Ctrl-C is finished before the service is gone."""
    first = start(running, tmp_path / "data")
    job = first.submit("sleep 1.5")
    eventually(lambda: first.status(job) == "in_progress", what="the job's start")
    assert first.stop() == 0

    second = start(running, tmp_path / "data")

    assert second.status(job) == "completed"


def test_a_killed_worker_is_started_again_and_its_part_runs_again(running: list[Up], tmp_path: Path) -> None:
    """SIGKILL of the engine's worker costs the parts it held, not the job."""
    up = start(running, tmp_path / "data")
    job = up.submit("sleep 1")
    eventually(lambda: up.status(job) == "in_progress", what="the job's start")

    up.worker().kill()

    eventually(lambda: up.status(job) == "completed", seconds=40, what="the job's end")
    assert "infer was ended by SIGKILL" in up.output.read_text()


def test_as_many_processes_prepare_jobs_as_are_asked_for(running: list[Up], tmp_path: Path) -> None:
    """PHI4_SIDE_WORKERS counts them; all of them tell how they are."""
    up = start(running, tmp_path / "data", PHI4_SIDE_WORKERS="3")

    eventually(lambda: len(up.http.get("/health").json()["workers"]) == 4, what="an engine's worker and three more")

    assert up.stop() == 0


def test_preparation_gives_way_to_engine_and_api(running: list[Up], tmp_path: Path) -> None:
    """A GPU whose worker waits for a core does nothing: side workers are nicer, within their session and as a whole."""
    up = start(running, tmp_path / "data")
    side, others = up.worker("side"), [up.worker(), *up.listening()]
    mine = psutil.Process().nice()

    eventually(lambda: side.nice() == mine + 10, what="its giving way")
    assert _session_nice(side) in ("10", None)
    assert {(one.nice(), _session_nice(one)) for one in others} <= {(mine, "0"), (mine, None)}


def test_as_many_processes_take_requests_as_are_asked_for(running: list[Up], tmp_path: Path) -> None:
    """PHI4_API_PROCESSES of them share a port; when one is killed, the other goes on and it is started again."""
    up = start(running, tmp_path / "data", PHI4_API_PROCESSES="2")
    eventually(lambda: len(up.listening()) == 2, what="two listening processes")
    first = up.listening()[0]

    first.kill()

    eventually(lambda: first not in up.listening(), what="its end")
    up.http.close()
    up.http = httpx.Client(base_url=up.http.base_url, timeout=30)  # for a new connection
    assert up.status(up.submit()) in ("queued", "in_progress", "completed")
    eventually(lambda: len(up.listening()) == 2, seconds=40, what="two listening processes again")
    assert up.stop() == 0


def test_a_taken_port_gives_one_line_that_names_the_variable(tmp_path: Path) -> None:
    """Nothing is started, and the message says what to set."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        env = os.environ | {"PORT": str(port), "PHI4_DATA_DIR": str(tmp_path)}
        done = subprocess.run([*PHI4, "up"], env=env, cwd=ROOT, capture_output=True, text=True, timeout=30)

    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"phi4: Port {port} is in use; set PORT to another one, e.g. PORT={port + 1}."]


def test_a_data_folder_that_cannot_be_written_gives_one_line_that_names_the_variable(tmp_path: Path) -> None:
    """A file where the folder should be stands for every folder that is closed to the user."""
    (tmp_path / "file").touch()
    env = os.environ | {"PORT": str(free_port()), "PHI4_DATA_DIR": str(tmp_path / "file" / "data")}
    done = subprocess.run([*PHI4, "up"], env=env, cwd=ROOT, capture_output=True, text=True, timeout=30)

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"phi4: The data folder {tmp_path}/file/data cannot be written (")
    assert "PHI4_DATA_DIR" in line


def test_a_bad_setting_stops_it_and_names_the_variable(tmp_path: Path) -> None:
    """A value that cannot be used is said in one line."""
    env = os.environ | {"PHI4_JOB_WINDOW": "many", "PHI4_DATA_DIR": str(tmp_path)}
    done = subprocess.run([*PHI4, "up"], env=env, cwd=ROOT, capture_output=True, text=True, timeout=30)

    assert done.returncode != 0
    assert "PHI4_JOB_WINDOW" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_demo_reads_its_examples_and_verifies_a_webhook() -> None:
    """`phi4 demo` runs every example on the real cpu engine, takes one signed webhook, and ends with 0."""
    expected = json.loads((ROOT / "examples" / "inputs" / "expected.json").read_text())
    env = {k: v for k, v in os.environ.items() if not k.startswith("PHI4_") and k not in ("PORT", "REDIS_URL")}
    done = subprocess.run([*PHI4, "demo"], env=env, cwd=ROOT, capture_output=True, text=True, timeout=110)

    assert done.returncode == 0, done.stderr
    assert "HL-2026-0417" in done.stdout
    assert "The Orchard at Mill Lane" in done.stdout
    assert "10:00-16:00" in done.stdout
    assert expected["talk.mp3"]["sentences"][-1] in done.stdout
    assert "signature verified" in done.stdout


def test_a_demo_that_cannot_start_says_why_and_what_to_do() -> None:
    """An engine that is not there ends the demo with its reason, and does not wait for ever."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PHI4_") and k not in ("PORT", "REDIS_URL")}
    done = subprocess.run(
        [*PHI4, "demo"],
        env=env | {"PHI4_ENGINE": "no.such:Engine"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 1
    assert "phi4 doctor" in done.stderr
    assert "no.such:Engine" in done.stderr
    assert "Traceback" not in done.stderr
