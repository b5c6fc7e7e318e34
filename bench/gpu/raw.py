"""AsyncLLM alone: the fastest plain use of it, against which the service is measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

from bench.gpu.inputs import Sample
from phi4.settings import Settings
from worker.engines import vllm_start
from worker.engines.event_loop import EventLoop
from worker.engines.phi4 import Prompt, prompt_for
from worker.engines.vllm_prompts import Rendering

_numbers = count()
_T = TypeVar("_T")


@dataclass(frozen=True)
class Told:
    """The tokens of an answer, and what an engine thinks of each: its log-probability, its rank (1 is likeliest)."""

    tokens: Sequence[int]
    logprobs: Sequence[float]
    ranks: Sequence[int]


class Raw:
    """An AsyncLLM with both adapters, asked from one event loop; prompts are rendered in threads."""

    def __init__(
        self, llm: Any, adapters: Mapping[str, Any], loop: EventLoop, *, render_threads: int, max_model_len: int
    ) -> None:
        self._llm, self._adapters, self._loop = llm, adapters, loop
        self._prompts = Rendering(llm)
        self._threads = ThreadPoolExecutor(render_threads)
        self._max_model_len = max_model_len

    @classmethod
    def start(cls, settings: Settings, *, render_threads: int) -> tuple[Raw, float]:
        """Start the engine; returns it and how many seconds that took. Raises `EngineUnavailable`."""
        began = time.monotonic()
        loop = EventLoop("raw")
        try:
            llm, adapters = vllm_start.load(settings, loop, render_threads, lambda _: None)
        except BaseException:
            loop.close()
            raise
        raw = cls(llm, adapters, loop, render_threads=render_threads, max_model_len=settings.max_model_len)
        return raw, time.monotonic() - began

    def close(self) -> None:
        """End the engine."""
        self._loop.call(self._llm.shutdown)
        self._loop.close()
        self._threads.shutdown()

    def per_second(self, samples: Sequence[Sample], *, tokens: int, in_flight: int) -> float:
        """Answer all samples, so many at once, and say how many a second; files are opened before the clock starts."""
        prompts = list(self._threads.map(self._prompt, samples))
        began = time.monotonic()
        self._each(prompts, lambda prompt: self._one(prompt, tokens), in_flight)
        return len(prompts) / (time.monotonic() - began)

    def answers(self, samples: Sequence[Sample], *, tokens: int, in_flight: int) -> list[Told]:
        """Answer all samples with the likeliest token each time, so many of them."""
        prompts = list(self._threads.map(self._prompt, samples))
        return self._each(prompts, lambda prompt: self._answer(prompt, tokens), in_flight)

    def judge(self, samples: Sequence[Sample], answers: Sequence[Told], *, in_flight: int) -> list[Told]:
        """Tell what this engine thinks of answers that another one, or itself, gave to the same samples."""
        prompts = self._threads.map(self._prompt, samples)
        given = list(zip(prompts, answers, strict=True))
        return self._each(given, lambda one: self._judge(*one), in_flight)

    def _prompt(self, sample: Sample) -> Prompt:
        return prompt_for(sample.task(), max_model_len=self._max_model_len)

    def _each(self, given: Sequence[Any], step: Callable[[Any], Awaitable[_T]], in_flight: int) -> list[_T]:
        async def every() -> list[_T]:
            seats = asyncio.Semaphore(in_flight)

            async def one(item: Any) -> _T:
                async with seats:
                    return await step(item)

            return await asyncio.gather(*map(one, given))

        return self._loop.submit(every()).result()

    async def _one(self, prompt: Prompt, tokens: int) -> None:
        await self._generate(prompt, tokens)

    async def _answer(self, prompt: Prompt, tokens: int) -> Told:
        output = await self._generate(prompt, tokens, logprobs=0)
        answer = output.outputs[0]
        return _told(list(answer.token_ids), answer.logprobs)

    async def _judge(self, prompt: Prompt, answer: Told) -> Told:
        output = await self._generate(prompt, 1, before=answer.tokens, prompt_logprobs=0)
        return _told(answer.tokens, output.prompt_logprobs[-len(answer.tokens) :])

    async def _generate(self, prompt: Prompt, tokens: int, *, before: Sequence[int] = (), **more: Any) -> Any:
        """Write so many tokens after the prompt and the tokens `before`; gives vLLM's output."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling = SamplingParams(
            temperature=0.0,
            max_tokens=tokens,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            **more,
        )
        inputs = await asyncio.get_running_loop().run_in_executor(self._threads, self._prompts.render, prompt)
        if before:
            inputs["prompt_token_ids"] = [*inputs["prompt_token_ids"], *before]
        final = None
        async for output in self._llm.generate(
            inputs, sampling, f"raw-{next(_numbers)}", lora_request=self._adapters.get(prompt.adapter or "")
        ):
            final = output
        written = len(final.outputs[0].token_ids) if final else 0
        if written != tokens:
            raise RuntimeError(f"{written} tokens instead of {tokens}")
        return final


def _told(tokens: Sequence[int], logprobs: Sequence[Mapping[int, Any]]) -> Told:
    judged = [one[token] for token, one in zip(tokens, logprobs, strict=True)]
    return Told(tokens, [one.logprob for one in judged], [one.rank for one in judged])
