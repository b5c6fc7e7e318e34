"""The GPU bench's figures: the engine alone, the service around it, both kinds at once, two GPUs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench.figures import Figure
from bench.gpu.inputs import Inputs, Sample
from bench.gpu.raw import Raw
from bench.gpu.service import mixed_per_second, one_at_a_time, per_second, whole_service
from bench.service import Service
from phi4.settings import load
from worker.engines.vllm import MAX_RENDER_THREADS

_KINDS = ("pages", "clips")


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    in_flight: int = 96
    number: int = 288  #: of pages and of clips, after a warm-up of at most `in_flight`
    alone: int = 6
    tokens: dict[str, int] = field(default_factory=lambda: {"pages": 256, "clips": 100})

    def of(self, kind: str) -> str:
        """Describe what one kind of sample is."""
        what = {"pages": "A4 pages at 150 dpi", "clips": "recordings of 30 s"}[kind]
        return f"{self.number} new {what}, {self.tokens[kind]} tokens each, {self.in_flight} in flight"


FULL = Size()
TINY = Size(in_flight=8, number=8, alone=2, tokens={"pages": 16, "clips": 16})


@dataclass(frozen=True)
class Bench:
    """One run: a model's folder, how much, on which GPUs (numbers as CUDA has them)."""

    model: Path
    size: Size
    inputs: Inputs
    gpus: Sequence[str]
    side_workers: int
    extra: str

    def settings(self, **more: Any) -> dict[str, Any]:
        """What engine and service are told alike."""
        return {
            "checkpoint": str(self.model),
            "max_in_flight": self.size.in_flight,
            "extra_serve_args": f"--no-enable-prefix-caching {self.extra}",
            **more,
        }

    def figures(self) -> Iterator[Figure]:
        """Measure the engine alone, then the service around it; then two GPUs when there are."""
        raw = yield from self._raw()
        with whole_service(self.settings(), gpus=self.gpus[:1], side_workers=self.side_workers) as service:
            alone = yield from self._service(service, raw)
            yield from self._mixed(service, alone)
        if len(self.gpus) > 1:
            yield from self._two_workers(alone["pages"])
            yield from self._tensor_parallel()

    def _samples(self, kind: str, number: int) -> Sequence[Sample]:
        return self.inputs.pages(number) if kind == "pages" else self.inputs.clips(number)

    def _raw(self) -> Generator[Figure, None, dict[str, float]]:
        size = self.size
        with self._engine() as (engine, seconds):
            yield Figure("engine_start_s", round(seconds, 1), "s", "AsyncLLM with both adapters")
            rates = {}
            for kind in _KINDS:
                ask = partial(engine.per_second, tokens=size.tokens[kind], in_flight=size.in_flight)
                ask(self._samples(kind, min(size.number, size.in_flight)))
                rates[kind] = ask(self._samples(kind, size.number))
                conditions = f"AsyncLLM alone, adapters at run time, prefix cache off, {size.of(kind)}"
                yield Figure(f"stock_{kind}_per_second", round(rates[kind], 2), f"{kind}/s", conditions)
        return rates

    @contextmanager
    def _engine(self, **more: Any) -> Iterator[tuple[Raw, float]]:
        with tempfile.TemporaryDirectory(prefix="phi4-bench-") as folder:
            threads = min(MAX_RENDER_THREADS, os.cpu_count() or 1)
            engine, seconds = Raw.start(load(**self.settings(**more), data_dir=folder), render_threads=threads)
            try:
                yield engine, seconds
            finally:
                engine.close()

    def _service(self, service: Service, raw: dict[str, float]) -> Generator[Figure, None, dict[str, float]]:
        size, rates = self.size, {}
        for kind in _KINDS:
            per_second(service, self._samples(kind, min(size.number, size.in_flight)), tokens=size.tokens[kind])
            rates[kind] = per_second(service, self._samples(kind, size.number), tokens=size.tokens[kind])
            conditions = f"HTTP in, result out, {self._workers()}, {size.of(kind)}"
            yield Figure(f"service_{kind}_per_second", round(rates[kind], 2), f"{kind}/s", conditions)
        shares = {kind: rates[kind] / raw[kind] for kind in _KINDS}
        conditions = f"service by engine alone, pages {shares['pages']:.3f}, clips {shares['clips']:.3f}, same run"
        yield Figure("service_to_raw_ratio", round(min(shares.values()), 3), "ratio", conditions)
        tokens = size.tokens["pages"]
        alone = one_at_a_time(service, self._samples("pages", size.alone), tokens=tokens)
        conditions = f"{size.alone} pages as jobs, one after the other, {tokens} tokens each"
        yield Figure("one_at_a_time_pages_per_second", round(alone, 3), "pages/s", conditions)
        return rates

    def _mixed(self, service: Service, alone: dict[str, float]) -> Iterator[Figure]:
        """Pages and clips at once: each must go on."""
        number = self.size.number // 2
        kinds = {kind: self._samples(kind, number) for kind in _KINDS}
        for kind, rate in mixed_per_second(service, kinds, tokens=self.size.tokens).items():
            conditions = (
                f"{number} pages and {number} clips sent in turn, counted while there were both; "
                f"{rate / alone[kind]:.2f} of its rate alone"
            )
            yield Figure(f"mixed_{kind}_per_second", round(rate, 2), f"{kind}/s", conditions)

    def _two_workers(self, one: float) -> Iterator[Figure]:
        size, tokens = self.size, self.size.tokens["pages"]
        with whole_service(self.settings(), gpus=self.gpus[:2], side_workers=self.side_workers) as service:
            per_second(service, self._samples("pages", 2 * size.in_flight), tokens=tokens)
            rate = per_second(service, self._samples("pages", 2 * size.number), tokens=tokens)
        conditions = f"pages, two GPUs and two workers on one queue against one, {self._workers()}"
        yield Figure("two_workers_speedup", round(rate / one, 3), "ratio", conditions)

    def _tensor_parallel(self) -> Iterator[Figure]:
        with self._engine(tensor_parallel_size=2) as (engine, seconds):
            for kind in _KINDS:
                engine.per_second(self._samples(kind, 2), tokens=self.size.tokens[kind], in_flight=2)
        conditions = "start of one engine on two GPUs, which then answered two pages and two clips"
        yield Figure("tensor_parallel_2_start_s", round(seconds, 1), "s", conditions)

    def _workers(self) -> str:
        return (
            f"{self.side_workers} side worker{'s' * (self.side_workers > 1)}, PHI4_MAX_IN_FLIGHT={self.size.in_flight}"
        )
