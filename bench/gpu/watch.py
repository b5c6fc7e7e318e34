"""Watches a service at work, second by second: what waits where, how busy each role's processes and the GPUs are."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from bench.service import ROLES, Service, processes
from phi4.store import Store
from phi4.store.connection import connect

_EVERY_S = 1.0


@contextmanager
def watching(service: Service, file: Path | None, about: str) -> Iterator[None]:
    """Add one JSON line a second to `file` during the block, each marked with what it is about; without a file, none.

    `waiting` counts units by queue, `cores` is how many cores a role's processes kept busy since the line before
    (`engine`: the processes below a worker with an engine), `gpu` is each card's share of time in use, in per cent.
    """
    if file is None:
        yield
        return
    store = Store(connect(service.env["REDIS_URL"]))
    done = threading.Event()

    def watch() -> None:
        began, before = time.monotonic(), _Used()
        with file.open("a") as lines:
            while not done.wait(_EVERY_S):
                now = _Used()
                line = {
                    "about": about,
                    "s": round(now.at - began, 1),
                    "waiting": store.work.waiting(),
                    "cores": now.since(before),
                    "gpu": _gpus(),
                }
                lines.write(json.dumps(line) + "\n")
                before = now

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class _Used:
    """Processor time that each process has had so far."""

    def __init__(self) -> None:
        self.at = time.monotonic()
        self._seconds: dict[tuple[str, int], float] = {}
        for role in ROLES:
            for process in processes(role):
                self._add(role, process)
                for below in _below(process) if role == "infer" else ():
                    self._add("engine", below)

    def since(self, before: _Used) -> dict[str, float]:
        """Cores kept busy since then, by role."""
        busy: dict[str, float] = {}
        for (role, pid), seconds in self._seconds.items():
            spent = seconds - before._seconds.get((role, pid), seconds)
            busy[role] = busy.get(role, 0.0) + spent / (self.at - before.at)
        return {role: round(cores, 2) for role, cores in busy.items()}

    def _add(self, role: str, process: psutil.Process) -> None:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            return
        self._seconds[role, process.pid] = times.user + times.system


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _gpus() -> list[int]:
    command = ("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits")
    try:
        done: Any = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [int(line) for line in done.stdout.split() if line.isdecimal()]
