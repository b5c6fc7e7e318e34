"""Runs the service as `phi4 up` does, for the time of a measurement, and looks at its processes' memory."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from cli.embedded import free_port
from cli.local import is_ready, prepared
from phi4.settings import load

#: How the command lines of each role's processes end; and how their titles begin where `setproctitle` is installed, as
#: with vLLM: Celery and gunicorn use it then.
ROLES = {
    "api": ("-m api", "gunicorn: "),
    "infer": ("-m worker infer", "[celeryd: infer-"),
    "side": ("-m worker side", "[celeryd: side-"),
}


@dataclass(frozen=True)
class Service:
    """A running service."""

    url: str
    http: httpx.Client
    env: Mapping[str, str]

    def submit(self, job_type: str, file: bytes | Path, *, wait: int = 0, **fields: str) -> dict[str, Any]:
        """POST one file as a job; waits up to `wait` seconds (60) for its end."""
        headers = {"Prefer": f"wait={wait}"} if wait else {}
        content = file.open("rb") if isinstance(file, Path) else file
        response = self.http.post(
            "/v1/jobs", data={"type": job_type, **fields}, files=[("file", ("input", content))], headers=headers
        )
        response.raise_for_status()
        return dict(response.json())

    def ended(self, job: dict[str, Any]) -> dict[str, Any]:
        """Wait for a job's end; raises when it did not complete."""
        while job["status"] in ("queued", "in_progress"):
            job = self.http.get(f"/v1/jobs/{job['id']}", params={"wait": 10}).raise_for_status().json()
        if job["status"] != "completed":
            raise RuntimeError(f"{job['id']} {job['status']}: {job.get('error')}")
        return job

    def cancel(self, job: dict[str, Any]) -> dict[str, Any]:
        """End a job; one that has ended stays as it is."""
        return dict(self.http.post(f"/v1/jobs/{job['id']}/cancel").raise_for_status().json())

    def rss_mb(self, role: str) -> float:
        """Resident memory of a role's processes (api, infer or side), pages that they share counted once (PSS)."""
        return sum(p.memory_full_info().pss for p in processes(role)) / 1e6


@contextmanager
def running(engine: str, **settings: object) -> Iterator[Service]:
    """Start the service with an engine in an empty folder, and stop it after the block."""
    with tempfile.TemporaryDirectory(prefix="phi4-bench-") as folder:
        settings |= {"metrics_port": 0, "log_level": "WARNING", "result_cache": False}
        chosen = load(engine=engine, port=free_port(), data_dir=folder, **settings)
        with prepared(chosen, report=lambda _: None, to_files=True) as local:
            supervising = threading.Thread(target=local.supervisor.run)
            supervising.start()
            try:
                while not is_ready(local.url):
                    if not supervising.is_alive():
                        raise RuntimeError("the service did not start; try `phi4 doctor`")
                    time.sleep(0.1)
                with httpx.Client(base_url=local.url, timeout=120) as http:
                    yield Service(local.url, http, local.env)
            finally:
                local.supervisor.stop()
                supervising.join()


def processes(role: str) -> list[psutil.Process]:
    """List this service's processes of a role (`ROLES`)."""
    end, title = ROLES[role]
    return [p for p in psutil.Process().children(recursive=True) if is_of(_told(p), end, title)]


def is_of(told: str, end: str, title: str) -> bool:
    """Whether a process' command line, or title, is that of a role."""
    return told.endswith(end) or told.startswith(title)


def _told(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


@contextmanager
def peak_rss_mb(service: Service, *roles: str) -> Iterator[dict[str, float]]:
    """Watch the memory of roles during the block; the dictionary holds each one's peak afterwards."""
    peaks = {role: service.rss_mb(role) for role in roles}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            for role in roles:
                peaks[role] = max(peaks[role], service.rss_mb(role))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        done.set()
        thread.join()
