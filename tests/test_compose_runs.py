"""The stack of docker-compose.yml without a GPU, built and run for real; only where a Docker engine answers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from cli.embedded import free_port
from tests.conftest import ROOT, eventually

#: Images are built first.
pytestmark = pytest.mark.timeout(3_600)
#: Named, since a service of scale 0 would be built all the same.
UP = ("up", "--detach", "--no-build", "--wait", "api", "worker-side", "worker-cpu")
SIGN = ROOT / "examples" / "inputs" / "sign.jpg"


def engine_problem() -> str:
    """Why there is nothing to run it with; '' when there is."""
    if shutil.which("docker") is None:
        return "Docker is not installed"
    for command, problem in ((["info"], "no Docker engine answers"), (["compose", "version"], "no `docker compose`")):
        try:
            ran = subprocess.run(["docker", *command], capture_output=True, timeout=30)
        except subprocess.TimeoutExpired:
            return "the Docker engine does not answer"
        if ran.returncode:
            return problem
    return ""


@dataclass(frozen=True)
class Stack:
    """The running containers."""

    env: dict[str, str]
    http: httpx.Client

    def compose(self, *arguments: str, seconds: int = 300) -> str:
        """Run `docker compose`; gives what it says."""
        command = ["docker", "compose", "--profile", "cpu", *arguments]
        ran = subprocess.run(command, cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=seconds)
        assert ran.returncode == 0, ran.stdout[-3_000:] + ran.stderr[-3_000:]
        return ran.stdout

    def containers(self) -> dict[str, dict[str, Any]]:
        """What runs, by service, as Docker describes it."""
        ids = self.compose("ps", "--all", "--quiet").split()
        described = json.loads(subprocess.check_output(["docker", "inspect", *ids], timeout=60))
        return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in described}

    def ask(self, question: str) -> str:
        """Send a job about the sign; gives its id."""
        data = {"type": "vqa", "params": json.dumps({"question": question})}
        with SIGN.open("rb") as file:
            return str(self.http.post("/v1/jobs", data=data, files={"file": file}).raise_for_status().json()["id"])

    def ended(self, job_id: str) -> dict[str, Any]:
        """Wait for a job's end."""

        def look() -> Any:
            try:
                job = self.http.get(f"/v1/jobs/{job_id}", params={"wait": 10}).json()
            except httpx.TransportError:
                return None
            return job if job.get("status") in ("completed", "failed", "cancelled") else None

        return dict(eventually(look, seconds=180, what="the end of the job"))


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Built by build.sh, up with the cpu profile under a name of its own, and taken away with its volumes."""
    if problem := engine_problem():
        pytest.skip(problem)
    port = str(free_port())
    named = {"COMPOSE_PROJECT_NAME": f"phi4test{uuid.uuid4().hex[:8]}", "PORT": port, "PHI4_PUBLISH": "127.0.0.1"}
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PHI4_", "REDIS_"))} | named
    subprocess.run([str(ROOT / "build.sh"), "api", "worker-cpu"], env=env, check=True, timeout=3_000)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        running = Stack(env, client)
        try:
            running.compose(*UP, seconds=600)
            yield running
        finally:
            running.compose("down", "--volumes", "--timeout", "90")


def test_a_job_runs_through_the_containers(stack: Stack) -> None:
    """In through the published port, prepared by one worker, answered by another."""
    ended = stack.ended(stack.ask("What are the opening hours on Saturday?"))

    assert (ended["status"], ended["engine"]) == ("completed", "cpu")
    assert ended["result"]["answer"] == "10:00-16:00"


def test_containers_run_as_they_were_described(stack: Stack) -> None:
    """Healthy, not as root, on a root file system that cannot be written, the API on loopback alone."""
    containers = stack.containers()

    assert set(containers) == {"valkey", "api", "worker-side", "worker-cpu"}
    assert {c["State"]["Health"]["Status"] for c in containers.values()} == {"healthy"}
    for name in ("api", "worker-side", "worker-cpu"):
        assert stack.compose("exec", "-T", name, "id", "-u").strip() == "10001"
        assert containers[name]["HostConfig"]["ReadonlyRootfs"] is True
    published = containers["api"]["NetworkSettings"]["Ports"]["8000/tcp"]
    assert {one["HostIp"] for one in published} == {"127.0.0.1"}


def test_figures_are_served_inside(stack: Stack) -> None:
    """By every container of ours, on the port that Prometheus scrapes."""
    read = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9108/metrics').read().decode())"
    for name in ("api", "worker-side", "worker-cpu"):
        assert "phi4_" in stack.compose("exec", "-T", name, "python", "-c", read)


def test_a_killed_worker_and_a_restarted_valkey_lose_no_job(stack: Stack) -> None:
    """Jobs sent before end afterwards."""
    jobs = [stack.ask("What are the opening hours on Saturday?") for _ in range(4)]
    stack.compose("kill", "worker-cpu")
    stack.compose("restart", "valkey")
    stack.compose(*UP, seconds=300)

    assert {stack.ended(job)["status"] for job in jobs} == {"completed"}


def test_keys_are_made_inside(stack: Stack) -> None:
    """Redis is not reached from outside; the first key closes the service to all who have none."""
    token = stack.compose("exec", "-T", "worker-side", "python", "-m", "cli", "keys", "create", "acme").strip()
    eventually(lambda: stack.http.get("/v1/jobs").status_code == 401, what="the service to close")

    assert stack.http.get("/v1/jobs", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_containers_end_when_they_are_told(stack: Stack) -> None:
    """With exit code 0, not killed."""
    stack.compose("stop", "api", "worker-side", "worker-cpu")
    ended = {name: c["State"]["ExitCode"] for name, c in stack.containers().items() if name != "valkey"}

    assert ended == {"api": 0, "worker-side": 0, "worker-cpu": 0}
