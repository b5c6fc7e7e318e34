"""The whole service around the engine: files in over HTTP, results out, on one GPU or two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from bench.gpu.inputs import Sample
from bench.service import Service, running

ENGINE = "bench.gpu.fixed:Fixed"
_CLIENTS = 16


@contextmanager
def whole_service(settings: dict[str, Any], *, gpus: Sequence[int] = (0,)) -> Iterator[Service]:
    """Run the service with one worker on each of these GPUs."""
    os.environ["CUDA_VISIBLE_DEVICES"] = str(gpus[0])
    with running(ENGINE, **settings) as service, _more_workers(service, gpus[1:]):
        yield service


@contextmanager
def _more_workers(service: Service, gpus: Sequence[int]) -> Iterator[None]:
    command = [sys.executable, "-m", "worker", "infer"]
    workers = [
        subprocess.Popen(command, env=os.environ | service.env | {"CUDA_VISIBLE_DEVICES": str(gpu)}) for gpu in gpus
    ]
    try:
        while _ready(service) < 1 + len(workers):
            if any(worker.poll() is not None for worker in workers):
                raise RuntimeError("a second worker does not start")
            time.sleep(0.5)
        yield
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait(120)


def _ready(service: Service) -> int:
    workers = service.http.get("/health").json()["workers"]
    return sum(1 for worker in workers if worker["engine"] and worker["stage"] == "ready")


def per_second(service: Service, samples: Sequence[Sample], *, tokens: int) -> float:
    """Send every sample as a job of its own, all at once, and say how many pages or clips were done a second."""
    params = json.dumps({"max_tokens": tokens})
    began = time.monotonic()
    with ThreadPoolExecutor(_CLIENTS) as clients:
        jobs = list(clients.map(lambda s: service.submit(s.job_type, s.content, params=params), samples))
    for job, sample in zip(jobs, samples, strict=True):
        _check(service.ended(job), tokens * len(sample.tasks))
    return sum(len(sample.tasks) for sample in samples) / (time.monotonic() - began)


def one_at_a_time(service: Service, samples: Sequence[Sample], *, tokens: int) -> float:
    """As `per_second`, but the next one is sent when the last one ended: what a caller in a loop gets."""
    params = json.dumps({"max_tokens": tokens})
    began = time.monotonic()
    for sample in samples:
        _check(service.ended(service.submit(sample.job_type, sample.content, wait=60, params=params)), tokens)
    return len(samples) / (time.monotonic() - began)


def _check(job: dict[str, Any], tokens: int) -> None:
    if job["usage"]["completion_tokens"] != tokens:
        raise RuntimeError(f"{job['usage']} instead of {tokens} tokens")
