"""AsyncLLM alone: the fastest plain use of it, against which the service is measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

from bench.gpu.inputs import Sample
from phi4.settings import Settings
from worker.engines import vllm_start
from worker.engines.event_loop import EventLoop
from worker.engines.phi4 import SAMPLE_RATE, Prompt, prompt_for

_numbers = count()


class Raw:
    """An AsyncLLM with both adapters, asked from one event loop; prompts are rendered in threads."""

    def __init__(
        self, llm: Any, adapters: Mapping[str, Any], loop: EventLoop, *, render_threads: int, max_model_len: int
    ) -> None:
        self._llm, self._adapters, self._loop = llm, adapters, loop
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
        self._loop.submit(self._all(prompts, tokens, in_flight)).result()
        return len(prompts) / (time.monotonic() - began)

    def _prompt(self, sample: Sample) -> Prompt:
        return prompt_for(sample.task(), max_model_len=self._max_model_len)

    async def _all(self, prompts: Sequence[Prompt], tokens: int, in_flight: int) -> None:
        seats = asyncio.Semaphore(in_flight)

        async def one(prompt: Prompt) -> None:
            async with seats:
                await self._one(prompt, tokens)

        await asyncio.gather(*map(one, prompts))

    async def _one(self, prompt: Prompt, tokens: int) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling = SamplingParams(
            temperature=0.0,
            max_tokens=tokens,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        inputs = await asyncio.get_running_loop().run_in_executor(self._threads, self._render, prompt)
        written = 0
        async for output in self._llm.generate(
            inputs, sampling, f"raw-{next(_numbers)}", lora_request=self._adapters.get(prompt.adapter or "")
        ):
            written = len(output.outputs[0].token_ids)
        if written != tokens:
            raise RuntimeError(f"{written} tokens instead of {tokens}")

    def _render(self, prompt: Prompt) -> Any:
        from vllm.renderers.inputs.preprocess import parse_model_prompt

        media: dict[str, Any] = {"image": list(prompt.images)} if prompt.images else {}
        if prompt.clips:
            media = {"audio": [(clip, SAMPLE_RATE) for clip in prompt.clips]}
        raw = {"prompt": prompt.text, "multi_modal_data": media}
        (inputs,) = self._llm.renderer.render_cmpl([parse_model_prompt(self._llm.model_config, raw)])
        return inputs
