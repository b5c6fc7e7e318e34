"""The programs in examples/ do what their first lines say, against a running service."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cli.embedded import free_port
from tests.conftest import ROOT, Service, eventually

EXAMPLES = ROOT / "examples"
SIGN = EXAMPLES / "inputs" / "sign.jpg"
QUESTION = "What are the opening hours on Saturday?"


@pytest.fixture
def env(cpu_service: Service) -> dict[str, str]:
    """Where the service is."""
    return os.environ | {"PHI4_URL": str(cpu_service.http.base_url).rstrip("/"), "PYTHONPATH": str(ROOT)}


def run(*command: str | Path, env: dict[str, str]) -> str:
    """Run a program to its end."""
    done = subprocess.run([str(word) for word in command], env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_curl_submits_and_polls(env: dict[str, str]) -> None:
    """The text of a picture, and of a recording."""
    assert "10:00-16:00" in run(EXAMPLES / "submit_and_poll.sh", SIGN, env=env)
    assert "welcome" in run(EXAMPLES / "submit_and_poll.sh", EXAMPLES / "inputs" / "talk.mp3", "asr", env=env)


def test_python_submits_several(env: dict[str, str], tmp_path: Path) -> None:
    """One that fails says why."""
    broken = tmp_path / "broken.png"
    broken.write_bytes(SIGN.read_bytes()[:2_000])

    told = run(sys.executable, EXAMPLES / "submit_and_poll.py", SIGN, broken, env=env)

    assert f"==> {SIGN}: completed <==" in told
    assert f"==> {broken}: failed <==" in told
    assert "10:00-16:00" in told


def test_openai_s_client_asks(env: dict[str, str]) -> None:
    """The answer comes as a stream."""
    assert run(sys.executable, EXAMPLES / "openai_client.py", SIGN, QUESTION, env=env) == "10:00-16:00\n"


@pytest.fixture
def receiver(cpu_service: Service, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The receiver as a process; its address, and what it prints."""
    port, log = free_port(), tmp_path / "log"
    env = os.environ | {"PHI4_WEBHOOK_SECRET": cpu_service.env["PHI4_WEBHOOK_SECRET"]}
    with log.open("w") as file:
        command = [sys.executable, str(EXAMPLES / "webhook_receiver.py"), str(port)]
        process = subprocess.Popen(command, env=env, stdout=file, stderr=subprocess.STDOUT)
        url = f"http://127.0.0.1:{port}/hook"

        def answers() -> bool:
            try:
                return httpx.post(url).status_code == 401
            except httpx.TransportError:
                return False

        try:
            eventually(answers, what="the receiver's first answer")
            yield url, log
        finally:
            process.terminate()
            process.wait(10)


def test_the_receiver_believes_the_service_alone(cpu_service: Service, receiver: tuple[str, Path]) -> None:
    """A signed webhook is taken once, however often it comes; a stranger's gets 401."""
    url, log = receiver
    job = cpu_service.ended(cpu_service.submit("ocr", SIGN.read_bytes(), webhook_url=url).json()["id"])["id"]

    eventually(lambda: f"job.completed {job}" in log.read_text(), what="the webhook")
    (delivery,) = cpu_service.http.get(f"/v1/jobs/{job}/deliveries").json()["data"]
    cpu_service.http.post(f"/v1/jobs/{job}/deliveries/{delivery['id']}/replay").raise_for_status()
    eventually(
        lambda: len(cpu_service.http.get(f"/v1/jobs/{job}/deliveries").json()["data"][0]["attempts"]) == 2,
        what="the second try",
    )

    assert log.read_text().count(f"job.completed {job}") == 1
    assert httpx.post(url, content=b"{}", headers={"webhook-id": "evt_1"}).status_code == 401
