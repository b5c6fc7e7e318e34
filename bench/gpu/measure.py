"""The GPU bench's figures: the engine alone, the service around it, both kinds at once, two GPUs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench.figures import Figure
from bench.gpu.inputs import Inputs, Sample
from bench.gpu.outputs import difference
from bench.gpu.raw import Raw
from bench.gpu.service import (
    latencies,
    mixed_per_second,
    one_at_a_time,
    one_more,
    per_second,
    wait_for,
    whole_service,
)
from bench.gpu.size import KINDS, Size
from bench.gpu.watch import watching
from bench.service import Service
from phi4.settings import load
from worker.engines.vllm import MAX_RENDER_THREADS

#: What workers take of a card that they share: a page fills seven times as much KV cache as a clip.
_SHARES = {"vision": 0.6, "speech": 0.3}
#: How the engine of a figure was set up.
_HOW = {
    "stock": "vLLM's own model, adapters at run time",
    "service": "vLLM's own model, adapters at run time",
    "tuned": "our encoders, adapter folded into the weights",
    "tuned_service": "our encoders, adapter folded into the weights",
    "fp8": "our encoders, adapter folded into the weights, PHI4_FP8=all",
    "fp8_service": "our encoders, adapter folded into the weights, PHI4_FP8=all",
    "mixed": "vLLM's own model, adapters at run time",
    "one_worker": "one worker, our encoders, adapters at run time",
    "one_worker_mixed": "one worker, our encoders, adapters at run time",
    "side_by_side": "two workers on one card, each with its adapter folded into the weights; of the memory, "
    + " and ".join(f"{serve} has {share}" for serve, share in _SHARES.items()),
}
#: What can be measured apart; the ratio of service and engine wants both in one run.
GROUPS = (
    *("stock", "service", "tuned_service", "tuned", "fp8", "fp8_outputs", "one_worker", "side_by_side"),
    *("two_workers", "tensor_parallel"),
)
#: An assumption for the figures of cost, about what one H200 costs to rent.
_USD_PER_GPU_HOUR = 3.0


@dataclass(frozen=True)
class Bench:
    """One run: a model's folder, how much, on which GPUs (numbers as CUDA has them)."""

    model: Path
    size: Size
    inputs: Inputs
    gpus: Sequence[str]
    side_workers: int
    extra: str
    api_processes: int = 1
    kinds: Mapping[str, str] = field(default_factory=lambda: dict(KINDS))
    watch: Path | None = None  #: where it is written, second by second, what the service does

    def settings(self, **more: Any) -> dict[str, Any]:
        """What engine and service are told alike."""
        extra = more.pop("extra_serve_args", "")
        return {
            "checkpoint": str(self.model),
            "max_in_flight": self.size.in_flight,
            "extra_serve_args": f"--no-enable-prefix-caching {self.extra} {extra}".strip(),
            **more,
        }

    def figures(self, groups: Sequence[str] = GROUPS) -> Iterator[Figure]:
        """Measure the engine alone, then the service around it, stock and tuned; then two GPUs."""
        raw = (yield from self._stock()) if "stock" in groups else None
        if "service" in groups:
            yield from self._stock_service(raw)
        for kind, serve in self.kinds.items():
            if "tuned_service" in groups:
                yield from self._tuned_service(kind, serve)
        for kind, serve in self.kinds.items():
            if "tuned" in groups:
                with self._engine(serve=serve) as (engine, _):
                    yield from self._raw(engine, "tuned", [kind])
        if "fp8" in groups:
            yield from self._fp8()
        if "fp8_outputs" in groups:
            yield from self._outputs()
        if "one_worker" in groups:
            yield from self._one_worker()
        if "side_by_side" in groups:
            yield from self._side_by_side()
        if "two_workers" in groups:
            yield from self._two_workers()
        if "tensor_parallel" in groups:
            yield from self._tensor_parallel()

    def _stock(self) -> Generator[Figure, None, dict[str, float]]:
        with self._engine(stock_model=True) as (engine, seconds):
            yield Figure("engine_start_s", round(seconds, 1), "s", "AsyncLLM with both adapters")
            return (yield from self._raw(engine, "stock", self.kinds))

    def _stock_service(self, raw: dict[str, float] | None) -> Iterator[Figure]:
        with self._service(stock_model=True) as service:
            alone = yield from self._whole(service, "service", self.kinds)
            if raw is not None:
                yield self._ratio("service_to_raw_ratio", alone, raw)
            if len(self.kinds) == len(KINDS):
                yield self._one_at_a_time(service)
                yield from self._mixed(service, "mixed", alone)

    def _tuned_service(self, kind: str, serve: str) -> Iterator[Figure]:
        with self._service(serve=serve) as service:
            rates = yield from self._whole(service, "tuned_service", [kind])
            yield from self._half_load(service, kind, rates[kind] / 2)

    def _fp8(self) -> Iterator[Figure]:
        for kind, serve in self.kinds.items():
            with self._service(serve=serve, fp8="all") as service:
                yield from self._whole(service, "fp8_service", [kind])

    def _outputs(self) -> Iterator[Figure]:
        """How far 8 bits are from 16, beside how far 16 are from themselves when they read what they have written."""
        size = self.size
        for kind, serve in self.kinds.items():
            samples, tokens = self._samples(kind, size.judged), size.tokens[kind]
            with self._engine(serve=serve, extra_serve_args=size.judge) as (engine, _):
                written = engine.answers(samples, tokens=tokens, in_flight=size.in_flight)
                itself = difference(written, engine.judge(samples, written, in_flight=4))
            other = dict(size.other)
            other["extra_serve_args"] = f"{size.judge} {other.get('extra_serve_args', '')}".strip()
            with self._engine(serve=serve, **other) as (engine, _):
                judged = difference(written, engine.judge(samples, written, in_flight=4))
            given = f"{size.judged} {kind}, {tokens} tokens each, written in 16 bits and judged token by token"
            yield Figure(
                f"fp8_{kind}_same_tokens",
                round(judged.same, 4),
                "share",
                f"{given} in 8 (PHI4_FP8=all); judged in 16 bits again: {itself.same:.4f}",
            )
            yield Figure(
                f"fp8_{kind}_logprob_change",
                round(judged.change, 5),
                "nats",
                f"{given} in 8 (PHI4_FP8=all): mean absolute change; in 16 bits again: {itself.change:.5f}",
            )

    def _one_worker(self) -> Iterator[Figure]:
        """Each kind alone and both at once, one worker for both."""
        with self._service() as service:
            alone = yield from self._whole(service, "one_worker", KINDS)
            yield from self._mixed(service, "one_worker_mixed", alone)

    def _side_by_side(self) -> Iterator[Figure]:
        """Both kinds at once, one worker for each on the same card."""
        with ExitStack() as stack:
            service = stack.enter_context(self._service(serve="vision", extra_serve_args=_share("vision")))
            speech = {"PHI4_EXTRA_SERVE_ARGS": self.settings(extra_serve_args=_share("speech"))["extra_serve_args"]}
            stack.enter_context(one_more(service, self.gpus[0], PHI4_SERVE="speech", **speech))
            wait_for(service, infer=2, side=self.side_workers)
            self._warm_up(service)
            yield from self._mixed(service, "side_by_side")

    def _warm_up(self, service: Service) -> None:
        for kind in KINDS:
            per_second(service, self._samples(kind, self.size.in_flight), tokens=self.size.tokens[kind])

    def _half_load(self, service: Service, kind: str, rate: float) -> Iterator[Figure]:
        """What a caller waits while the service has half of the work that it can do."""
        samples = self._samples(kind, max(4, round(rate * self.size.half_load_s)))
        took = sorted(latencies(service, samples, rate=rate, tokens=self.size.tokens[kind]))
        conditions = f"{len(samples)} {kind} sent at even gaps, {rate:.1f} a second, from POST to the result"
        for share in (50, 95):
            value = round(took[min(len(took) - 1, len(took) * share // 100)], 2)
            yield Figure(f"tuned_half_load_{kind}_p{share}_s", value, "s", conditions)

    def _samples(self, kind: str, number: int) -> Sequence[Sample]:
        return self.inputs.pages(number) if kind == "pages" else self.inputs.clips(number)

    def _raw(self, engine: Raw, name: str, kinds: Iterable[str]) -> Generator[Figure, None, dict[str, float]]:
        size, rates = self.size, {}
        for kind in kinds:
            ask = partial(engine.per_second, tokens=size.tokens[kind], in_flight=size.in_flight)
            ask(self._samples(kind, size.in_flight))
            rates[kind] = ask(self._samples(kind, size.number[kind]))
            conditions = f"AsyncLLM alone, {_HOW[name]}, prefix cache off, {size.of(kind)}"
            yield Figure(f"{name}_{kind}_per_second", round(rates[kind], 2), f"{kind}/s", conditions)
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

    @contextmanager
    def _service(self, **more: Any) -> Iterator[Service]:
        settings = self.settings(**more)
        settings["api_processes"] = self.api_processes
        with whole_service(settings, gpus=self.gpus[:1], side_workers=self.side_workers) as service:
            yield service

    def _whole(self, service: Service, name: str, kinds: Iterable[str]) -> Generator[Figure, None, dict[str, float]]:
        size, rates = self.size, {}
        for kind in kinds:
            per_second(service, self._samples(kind, size.in_flight), tokens=size.tokens[kind])
            samples = self._samples(kind, size.number[kind])
            with watching(service, self.watch, f"{name} {kind}"):
                rates[kind] = per_second(service, samples, tokens=size.tokens[kind])
            conditions = f"HTTP in, result out, {_HOW[name]}, {self._workers()}, {size.of(kind)}"
            yield Figure(f"{name}_{kind}_per_second", round(rates[kind], 2), f"{kind}/s", conditions)
            yield _cost(name, kind, rates[kind])
        return rates

    def _ratio(self, name: str, rates: dict[str, float], raw: dict[str, float]) -> Figure:
        shares = {kind: rates[kind] / raw[kind] for kind in rates}
        told = ", ".join(f"{kind} {share:.3f}" for kind, share in shares.items())
        conditions = f"service by engine alone, {told}, same run"
        return Figure(name, round(min(shares.values()), 3), "ratio", conditions)

    def _one_at_a_time(self, service: Service) -> Figure:
        number, tokens = self.size.alone, self.size.tokens["pages"]
        rate = one_at_a_time(service, self._samples("pages", number), tokens=tokens)
        conditions = f"{number} pages as jobs, one after the other, {tokens} tokens each"
        return Figure("one_at_a_time_pages_per_second", round(rate, 3), "pages/s", conditions)

    def _mixed(self, service: Service, name: str, alone: Mapping[str, float] | None = None) -> Iterator[Figure]:
        """Pages and clips at once: each must go on."""
        numbers = self.size.mixed
        kinds = {kind: self._samples(kind, number) for kind, number in numbers.items()}
        with watching(service, self.watch, name):
            rates = mixed_per_second(service, kinds, tokens=self.size.tokens)
        for kind, rate in rates.items():
            conditions = (
                f"{numbers['pages']} pages and up to {numbers['clips']} clips in turn, counted while there were both; "
                + _HOW[name]
                + (f"; {rate / alone[kind]:.2f} of its rate alone" if alone else "")
            )
            yield Figure(f"{name}_{kind}_per_second", round(rate, 2), f"{kind}/s", conditions)

    def _two_workers(self) -> Iterator[Figure]:
        size, tokens = self.size, self.size.tokens["pages"]
        with self._service(serve="vision") as service:
            rates = []
            with ExitStack() as stack:
                for number in (1, 2):
                    if number == 2:
                        stack.enter_context(one_more(service, self.gpus[1]))
                        wait_for(service, infer=2, side=self.side_workers)
                    per_second(service, self._samples("pages", number * size.in_flight), tokens=tokens)
                    samples = self._samples("pages", number * size.number["pages"])
                    rates.append(per_second(service, samples, tokens=tokens))
        conditions = (
            f"pages, two GPUs and two workers on one queue ({rates[1]:.2f} pages/s) against one ({rates[0]:.2f}), "
            f"{_HOW['tuned_service']}, {self._workers()}"
        )
        yield Figure("two_workers_speedup", round(rates[1] / rates[0], 3), "ratio", conditions)

    def _tensor_parallel(self) -> Iterator[Figure]:
        with self._engine(tensor_parallel_size=2) as (engine, seconds):
            for kind in KINDS:
                engine.per_second(self._samples(kind, 2), tokens=self.size.tokens[kind], in_flight=2)
        conditions = "start of one engine on two GPUs, which then answered two pages and two clips"
        yield Figure("tensor_parallel_2_start_s", round(seconds, 1), "s", conditions)

    def _workers(self) -> str:
        side, api = self.side_workers, self.api_processes
        return (
            f"{side} side worker{'s' * (side > 1)}, {api} API process{'es' * (api > 1)}, "
            f"PHI4_MAX_IN_FLIGHT={self.size.in_flight}"
        )


def _share(serve: str) -> str:
    return f"--gpu-memory-utilization {_SHARES[serve]}"


def _cost(name: str, kind: str, rate: float) -> Figure:
    """What a thousand pages or an hour of sound cost on a GPU that is always busy."""
    units, unit = {"pages": (1_000, "1000_pages"), "clips": (120, "audio_hour")}[kind]
    value = round(_USD_PER_GPU_HOUR / 3_600 * units / rate, 4)
    conditions = f"{rate:.2f} {kind}/s on a GPU at {_USD_PER_GPU_HOUR:g} USD an hour (assumed), always busy"
    return Figure(f"{name}_usd_per_{unit}", value, "USD", conditions)
