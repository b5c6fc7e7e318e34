"""The production engine: Phi-4-multimodal in vLLM's AsyncLLM; this file, `vllm_start` and `vllm_prompts` know vLLM.

AsyncLLM lives on an event loop of its own inside the worker and drives EngineCore, its child process. A prompt is
prepared in the thread that brings the task (a page takes 0.1 s), never on that loop. The names used here are the same
in vLLM 0.26 and 0.32 (tests/test_vllm_contract.py).
"""

from __future__ import annotations

import contextlib
import copy
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from phi4.errors import (
    Cancelled,
    CannotAnswer,
    EngineDead,
    EngineError,
    EngineUnavailable,
    Phi4Error,
    PromptTooLong,
)
from phi4.settings import Settings
from worker.engines import vllm_start
from worker.engines.attempt import Said, answer, check_counts
from worker.engines.base import Answer, Call, Modality, Task
from worker.engines.crops import MOST_PIXELS
from worker.engines.event_loop import EventLoop
from worker.engines.loops import LoopWatch
from worker.engines.phi4 import (
    STOP_TOKEN_IDS,
    Prompt,
    count_tokens,
    prompt_for,
    room_for_answer,
    too_long,
)
from worker.engines.probe import probe
from worker.engines.serve_args import media_limits
from worker.engines.vllm_prompts import Rendering
from worker.engines.vllm_start import first_line

#: Threads that prepare prompts at once. Three make 140 clips or 50 pages a second; more only wait for the interpreter,
#: and make the event loop wait for it.
MAX_RENDER_THREADS = 3
#: How often a waiting task looks whether it was cancelled.
_LOOK_S = 0.2
#: How long an aborted request may take to leave the engine.
_ABORT_S = 5.0
#: What vLLM says of a prompt that it does not take for its length.
_TOO_LONG = "maximum context length"


class VllmEngine:
    """Reads pages, answers questions and writes down speech, many at once, on one engine."""

    name = "vllm"

    def __init__(self, settings: Settings) -> None:
        self.model = settings.served_name
        self.slots = settings.max_in_flight
        #: An adapter that was folded into the weights serves its own modality alone.
        self.modalities: frozenset[Modality] = (
            frozenset({"vision", "speech", "text"}) if settings.serve == "all" else frozenset({settings.serve})
        )
        self._settings = settings
        threads = min(MAX_RENDER_THREADS, os.cpu_count() or 1)
        self._render_threads = threads
        # Parts that are made ready, or whose answers are kept, while others fill the engine: with eight of them beside
        # 96 places no more than 55 were taken on clips, with 32 all. More would be kept from other workers.
        self.ahead = max(threads, self.slots // 3)
        self.most_pixels: int | None = MOST_PIXELS
        self._rendering = threading.BoundedSemaphore(threads)
        self._adapters: Mapping[str, Any] = {}
        self._loop: EventLoop | None = None
        self._llm: Any = None
        self._prompts: Rendering | None = None
        self._counting: Any = None

    # -- life

    def start(self, stage: Callable[[str], None]) -> None:
        """Load model and adapters and let them answer a picture and a clip.

        Raises `EngineUnavailable` with what to set, or `EngineError` when a probe is not answered.
        """
        self._loop = EventLoop("vllm")
        try:
            self._llm, self._adapters = vllm_start.load(self._settings, self._loop, self._render_threads, stage)
        except EngineUnavailable:
            self.stop()
            raise
        self._prompts = Rendering(self._llm)
        stage("probing")
        probe(self, self._settings.serve)

    def check(self) -> None:
        """Raise `EngineDead` when EngineCore is gone, or was never there."""
        if self._llm is None or self._llm.errored:
            raise EngineDead("vLLM's EngineCore is not running.")

    def stop(self) -> None:
        """End EngineCore and free the card; stopping twice does no harm."""
        loop, llm = self._loop, self._llm
        self._loop = self._llm = self._prompts = None
        if loop is None:
            return
        if llm is not None:
            # On its loop: from another thread vLLM's output handler takes the end for a death.
            loop.call(llm.shutdown)
        loop.close()

    @property
    def running(self) -> int:
        """How many requests are inside the engine."""
        return 0 if self._llm is None else int(self._llm.output_processor.get_num_unfinished_requests())

    # -- work

    def run(self, task: Task, call: Call) -> Answer:
        """Answer `task`; called by many threads at once.

        Raises `InputError` (it does not fit), `CannotAnswer`, `AnswerLoops`, `AnswerCut`, `EngineError` (try again),
        `EngineDead` or `Cancelled`; the request has left the engine by then.
        """
        self.check()
        prompt = prompt_for(task, max_model_len=self._settings.max_model_len)
        check_counts(prompt, media_limits(self._settings))
        return answer(prompt, call, lambda again, number: self._ask(again, call, number))

    def sampling(self, prompt: Prompt, max_tokens: int) -> Any:
        """vLLM's sampling parameters for a prompt."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        return SamplingParams(
            temperature=prompt.temperature,
            top_p=prompt.top_p,
            seed=prompt.seed,
            stop=list(prompt.stop),
            stop_token_ids=list(STOP_TOKEN_IDS),
            max_tokens=max_tokens,
            output_kind=RequestOutputKind.DELTA,
            structured_outputs=StructuredOutputsParams(json=prompt.schema) if prompt.schema is not None else None,
        )

    def _ask(self, prompt: Prompt, call: Call, number: int) -> Said:
        """Send one attempt through the engine."""
        inputs = self._render(prompt, call)
        prompt_tokens = len(inputs["prompt_token_ids"])
        room = room_for_answer(prompt, prompt_tokens, max_model_len=self._settings.max_model_len)
        # Checked before `_generate` is made: a coroutine that never runs is a warning.
        if call.cancelled.is_set():
            raise Cancelled
        if self._loop is None:
            raise EngineDead("The engine is being stopped.")
        left = threading.Event()
        generating = self._generate(
            inputs, self.sampling(prompt, room), call, f"{call.request_id}-{number}", prompt, left
        )
        said = self._wait(self._loop.submit(generating), call, left)
        return replace(said, prompt_tokens=prompt_tokens)

    def _render(self, prompt: Prompt, call: Call) -> Any:
        """Turn a prompt into tokens and tensors, in the calling thread."""
        with self._turn_to_render(call):
            if (prompts := self._prompts) is None:
                raise EngineDead("The engine is being stopped.")
            try:
                return prompts.render(prompt)
            except Exception as error:
                if _TOO_LONG in str(error):
                    raise too_long(self._count(prompt), self._settings.max_model_len) from error
                raise self._translate(error) from error

    def _count(self, prompt: Prompt) -> int:
        """Count a prompt's tokens to the end, while vLLM's own count stops at what it takes."""
        if self._counting is None:
            # A copy: vLLM's own is set to cut, and one that is in use cannot be set otherwise.
            self._counting = copy.deepcopy(self._llm.renderer.get_tokenizer())
        return count_tokens(prompt, lambda words: len(self._counting.encode(words)))

    @contextlib.contextmanager
    def _turn_to_render(self, call: Call) -> Iterator[None]:
        """Wait for one of the threads that may render at once; raises `Cancelled` while waiting."""
        while not self._rendering.acquire(timeout=_LOOK_S):
            if call.cancelled.is_set():
                raise Cancelled
        try:
            yield
        finally:
            self._rendering.release()

    async def _generate(
        self, inputs: Any, sampling: Any, call: Call, request_id: str, prompt: Prompt, left: threading.Event
    ) -> Said:
        """Follow one request to its end; sets `left` once the engine holds it no more."""
        pieces: list[str] = []
        tokens, reason = 0, ""
        watch = LoopWatch() if prompt.retries else None
        outputs = self._llm.generate(
            inputs, sampling, request_id, lora_request=self._adapters.get(prompt.adapter or ""), priority=call.priority
        )
        try:
            async with contextlib.aclosing(outputs):
                async for output in outputs:
                    piece = output.outputs[0]
                    tokens += len(piece.token_ids)
                    reason = piece.finish_reason or ""
                    pieces.append(piece.text)
                    if piece.text:
                        call.on_delta(piece.text)
                    if watch is not None and watch.hears_a_loop(piece.text):
                        return Said("".join(pieces), tokens, reason, loops=True)
        finally:
            left.set()
        return Said("".join(pieces), tokens, reason)

    def _wait(self, future: Future[Said], call: Call, left: threading.Event) -> Said:
        """Wait for an attempt; one that is cancelled is aborted in the engine first."""
        while True:
            try:
                said = future.result(timeout=_LOOK_S)
            except TimeoutError as error:
                if future.done() and future.exception() is error:
                    raise self._translate(error) from error
                if call.cancelled.is_set():
                    future.cancel()
                    left.wait(_ABORT_S)
                    raise Cancelled from None
            except Exception as error:
                raise self._translate(error) from error
            else:
                if said.reason not in ("stop", "length") and not said.loops:
                    # Also when EngineCore was told to end: what came so far is no answer.
                    raise EngineError(f"vLLM ended the request early ({said.reason or 'no reason given'}).")
                return said

    def _translate(self, error: Exception) -> Phi4Error:
        """Name vLLM's errors in the service's words; by name, since their ancestors differ between versions."""
        if type(error).__name__ == "EngineDeadError" or self._llm is None or self._llm.errored:
            return EngineDead("vLLM's EngineCore died.")
        if _TOO_LONG in str(error):
            return PromptTooLong(first_line(error))
        if isinstance(error, ValueError) or any(c.__name__ == "VLLMClientError" for c in type(error).__mro__):
            return CannotAnswer(f"The model cannot be asked this: {first_line(error)}")
        cause = error.__cause__ or error
        return EngineError(f"vLLM failed: {type(cause).__name__}: {first_line(cause)}")
