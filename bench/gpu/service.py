"""The whole service around the engine: files in over HTTP, results out, with as many workers as are wanted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from bench.gpu.inputs import Sample
from bench.service import Service, running

ENGINE = "bench.gpu.fixed:Fixed"
_CLIENTS = 16
_VISIBLE = "CUDA_VISIBLE_DEVICES"


@contextmanager
def whole_service(
    settings: Mapping[str, Any], *, gpus: Sequence[str], side_workers: int, engine: str = ENGINE
) -> Iterator[Service]:
    """Run the service with one engine's worker on each of these GPUs, and so many side workers."""
    with ExitStack() as stack:
        stack.enter_context(only_gpu(gpus[0]))
        service = stack.enter_context(running(engine, side_workers=side_workers, **settings))
        for gpu in gpus[1:]:
            stack.enter_context(one_more(service, gpu))
        wait_for(service, infer=len(gpus), side=side_workers)
        yield service


@contextmanager
def only_gpu(gpu: str) -> Iterator[None]:
    """Show one GPU, by its number, to the processes that are started in the block."""
    before = os.environ.get(_VISIBLE)
    os.environ[_VISIBLE] = gpu
    try:
        yield
    finally:
        os.environ.pop(_VISIBLE)
        if before is not None:
            os.environ[_VISIBLE] = before


@contextmanager
def one_more(service: Service, gpu: str, **settings: str) -> Iterator[None]:
    """Run one more worker with an engine, on this GPU and with these settings, for the time of the block."""
    log = Path(service.env["PHI4_DATA_DIR"]) / "logs" / f"infer-more-{gpu}.log"
    with log.open("ab") as file:
        worker = subprocess.Popen(
            [sys.executable, "-m", "worker", "infer"],
            env={**os.environ, **service.env, _VISIBLE: gpu, **settings},
            stdout=file,
            stderr=file,
        )
    try:
        yield
    finally:
        worker.terminate()
        worker.wait(120)


def wait_for(service: Service, *, infer: int, side: int, seconds: float = 900.0) -> None:
    """Wait until so many workers are ready."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        ready = [w for w in service.http.get("/health").json()["workers"] if w["stage"] == "ready"]
        with_engine = sum(bool(worker["engine"]) for worker in ready)
        if with_engine >= infer and len(ready) - with_engine >= side:
            return
        time.sleep(0.5)
    raise RuntimeError(f"{infer} workers with an engine and {side} without were not ready within {seconds:g} s")


def per_second(service: Service, samples: Sequence[Sample], *, tokens: int) -> float:
    """Send every sample as a job of its own, all at once, and say how many were done a second."""
    began = time.monotonic()
    _done(service, [(sample, tokens) for sample in samples])
    return len(samples) / (time.monotonic() - began)


def mixed_per_second(
    service: Service, kinds: Mapping[str, Sequence[Sample]], *, tokens: Mapping[str, int]
) -> dict[str, float]:
    """Send samples of several kinds in turn, and say how many of each were done a second while there were all kinds.

    All of the first kind are waited for, as in `per_second`; what is left of the others then is cancelled. `tokens`,
    the length of an answer, is by kind.
    """
    first, *_ = kinds
    over = threading.Event()

    def send(kind: str, sample: Sample) -> dict[str, Any] | None:
        return None if over.is_set() else _submit(service, sample, tokens[kind])

    def end(job: dict[str, Any] | None) -> dict[str, Any] | None:
        """Cancel what is left; a job that failed by itself is looked at as any other, and ends the run."""
        seen = job and service.cancel(job)
        return service.ended(seen) if seen and seen["status"] == "failed" else seen

    columns = [[(kind, sample) for sample in samples] for kind, samples in kinds.items()]
    in_turn = [asked for asked in chain.from_iterable(zip_longest(*columns)) if asked is not None]
    began = time.time()
    with ThreadPoolExecutor(_CLIENTS) as clients:
        sent = [(kind, clients.submit(send, kind, sample)) for kind, sample in in_turn]
        try:
            ended = [(first, service.ended(job.result())) for kind, job in sent if kind == first]
        finally:
            over.set()
        others = [(kind, job.result()) for kind, job in sent if kind != first]
        ended += zip((kind for kind, _ in others), clients.map(end, (job for _, job in others)), strict=True)
    ends: dict[str, list[float]] = {kind: [] for kind in kinds}
    for kind, job in ended:
        if job is not None and job["status"] == "completed":
            ends[kind].append(_check(job, tokens[kind])["completed_at"])
    return rates_while_all_ran(ends, began, {kind: len(samples) for kind, samples in kinds.items()})


def rates_while_all_ran(
    ends: Mapping[str, Sequence[float]], began: float, numbers: Mapping[str, int]
) -> dict[str, float]:
    """Count what ended of each kind until the first kind was through, a second."""
    until = min(max(times) for kind, times in ends.items() if len(times) == numbers[kind])
    return {kind: sum(t <= until for t in times) / max(1.0, until - began) for kind, times in ends.items()}


def one_at_a_time(service: Service, samples: Sequence[Sample], *, tokens: int) -> float:
    """As `per_second`, but the next one is sent when the last one ended: what a caller in a loop gets."""
    began = time.monotonic()
    for sample in samples:
        _check(service.ended(_submit(service, sample, tokens, wait=60)), tokens)
    return len(samples) / (time.monotonic() - began)


def latencies(service: Service, samples: Sequence[Sample], *, rate: float, tokens: int) -> list[float]:
    """Send samples at even gaps, `rate` a second, whatever became of those before; gives the seconds each one took."""
    began = time.monotonic() + 0.2

    def one(number: int, sample: Sample) -> float:
        starts = began + number / rate
        time.sleep(max(0.0, starts - time.monotonic()))
        _check(service.ended(_submit(service, sample, tokens, wait=60)), tokens)
        return time.monotonic() - starts

    # One for each: a caller that waits must not keep the next one from coming.
    with ThreadPoolExecutor(len(samples)) as callers:
        return list(callers.map(one, range(len(samples)), samples))


def _done(service: Service, asked: Sequence[tuple[Sample, int]]) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(_CLIENTS) as clients:
        jobs = list(clients.map(lambda a: _submit(service, *a), asked))
    return [_check(service.ended(job), tokens) for job, (_, tokens) in zip(jobs, asked, strict=True)]


def _submit(service: Service, sample: Sample, tokens: int, wait: int = 0) -> dict[str, Any]:
    return service.submit(sample.job_type, sample.content, wait=wait, params=json.dumps({"max_tokens": tokens}))


def _check(job: dict[str, Any], tokens: int) -> dict[str, Any]:
    if job["usage"]["completion_tokens"] != tokens:
        raise RuntimeError(f"{job['id']} used {job['usage']}, not {tokens} tokens for an answer")
    return job
