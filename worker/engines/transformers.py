"""The engine for machines without vLLM: Phi-4-multimodal in transformers, one answer at a time.

It asks what the vLLM engine asks (`phi4.prompt_for`), of transformers' own class, on one GPU or, slowly, on the CPU.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from phi4.errors import Cancelled, CannotAnswer, EngineDead, EngineError
from phi4.settings import Settings
from worker.engines import transformers_start
from worker.engines.attempt import Said, answer, check_counts
from worker.engines.base import Answer, Call, Modality, Task
from worker.engines.crops import MOST_PIXELS
from worker.engines.listener import Listener
from worker.engines.phi4 import STOP_TOKEN_IDS, Prompt, prompt_for, room_for_answer
from worker.engines.probe import probe
from worker.engines.serve_args import media_limits

#: How often a waiting task looks whether it was cancelled.
_LOOK_S = 0.2


class TransformersEngine:
    """Reads pages, answers questions and writes down speech, one after the other."""

    name = "transformers"
    modalities: frozenset[Modality] = frozenset({"vision", "speech", "text"})
    slots = 1
    ahead = 0
    most_pixels: int | None = MOST_PIXELS

    def __init__(self, settings: Settings) -> None:
        self.model = settings.served_name
        self._settings = settings
        self._loaded: transformers_start.Loaded | None = None
        self._grammars: Any = None
        self._broken = ""
        #: Held while the model works: adapters and the hooks below are the model's, not a call's.
        self._at_work = threading.Lock()
        self._call = Call()

    # -- life

    def start(self, stage: Callable[[str], None]) -> None:
        """Load model and adapters and let them answer a picture and a clip.

        Raises `EngineUnavailable` with what to set, or `EngineError` when a probe is not answered.
        """
        self._loaded = transformers_start.load(self._settings, stage)
        model = self._loaded.model
        # Between layers, so that a long prompt, which is one step, can be cancelled too.
        for layer in (*model.model.layers, *model.model.embed_tokens_extend.image_embed.img_processor.encoder.layers):
            layer.register_forward_pre_hook(self._look)
        stage("probing")
        probe(self, self._settings.serve)

    def check(self) -> None:
        """Raise `EngineDead` when the GPU has failed, or the model was never loaded."""
        if self._broken or self._loaded is None:
            raise EngineDead(self._broken or "The model is not loaded.")

    def stop(self) -> None:
        """Free the model; stopping twice does no harm."""
        self._loaded = self._grammars = None

    # -- work

    def run(self, task: Task, call: Call) -> Answer:
        """Answer `task`; others wait meanwhile.

        Raises `InputError` (it does not fit), `CannotAnswer`, `AnswerLoops`, `AnswerCut`, `EngineError` (try again),
        `EngineDead` or `Cancelled`.
        """
        self.check()
        prompt = prompt_for(task, max_model_len=self._settings.max_model_len)
        check_counts(prompt, media_limits(self._settings))
        with self._turn(call):
            return answer(prompt, call, lambda again, _: self._ask(again, call))

    @contextlib.contextmanager
    def _turn(self, call: Call) -> Iterator[None]:
        """Wait for the model; raises `Cancelled` while waiting."""
        while not self._at_work.acquire(timeout=_LOOK_S):
            if call.cancelled.is_set():
                raise Cancelled
        try:
            self._call = call
            yield
        finally:
            self._call = Call()
            self._at_work.release()

    def _look(self, *_: Any) -> None:
        if self._call.cancelled.is_set():
            raise Cancelled

    def _ask(self, prompt: Prompt, call: Call) -> Said:
        """Let the model answer once."""
        import torch

        self._look()
        self.check()
        loaded = self._loaded
        if loaded is None:
            raise EngineDead("The engine is being stopped.")
        inputs = loaded.renderer.render(prompt)
        prompt_tokens = inputs["input_ids"].shape[1]
        room = room_for_answer(prompt, prompt_tokens, max_model_len=self._settings.max_model_len)
        listener = Listener(loaded.renderer.tokenizer, prompt, call)
        held = [] if prompt.schema is None else [self._held_to(prompt.schema, loaded)]
        with self._failures(), _adapter(loaded.adapters, prompt.adapter), _seeded(prompt.seed), torch.inference_mode():
            loaded.model.generate(
                **_on_device(inputs, loaded.model),
                generation_config=_generation(prompt, room),
                stopping_criteria=[listener],
                logits_processor=held,
            )
        return replace(listener.said(), prompt_tokens=prompt_tokens)

    def _held_to(self, schema: dict[str, Any], loaded: transformers_start.Loaded) -> Any:
        """A logits processor that leaves only what fits the schema."""
        if importlib.util.find_spec("xgrammar") is None:
            raise CannotAnswer(
                "The transformers engine holds answers to a schema with the package xgrammar: pip install xgrammar."
            )
        import xgrammar
        from xgrammar.contrib.hf import LogitsProcessor

        if self._grammars is None:
            tokens = xgrammar.TokenizerInfo.from_huggingface(
                loaded.renderer.tokenizer,
                vocab_size=loaded.model.config.vocab_size,
                stop_token_ids=list(STOP_TOKEN_IDS),
            )
            self._grammars = xgrammar.GrammarCompiler(tokens)
        try:
            return LogitsProcessor(self._grammars.compile_json_schema(json.dumps(schema)))
        except RuntimeError as error:
            raise CannotAnswer(f"The model cannot be held to this schema: {str(error).splitlines()[0]}") from None

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Name what torch raises in the service's words."""
        import torch

        try:
            yield
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            raise EngineError("The GPU has no memory left for this; PHI4_MAX_MODEL_LEN may be lower.") from None
        except RuntimeError as error:
            first = str(error).strip().partition("\n")[0]
            if "CUDA error" in str(error):
                # After one, CUDA answers nothing more in this process.
                self._broken = f"The GPU failed: {first}"
                raise EngineDead(self._broken) from error
            raise EngineError(f"transformers failed: {first}") from error


def _generation(prompt: Prompt, room: int) -> Any:
    from transformers import GenerationConfig

    sampled: dict[str, Any] = {}
    if prompt.temperature > 0:
        sampled = {"temperature": prompt.temperature, "top_p": prompt.top_p, "top_k": 0}
    return GenerationConfig(
        do_sample=bool(sampled),
        max_new_tokens=room,
        eos_token_id=list(STOP_TOKEN_IDS),
        pad_token_id=STOP_TOKEN_IDS[-1],
        **sampled,
    )


def _on_device(inputs: dict[str, Any], model: Any) -> dict[str, Any]:
    """The inputs where the model is; numbers in its precision, ids and sizes as they are."""
    moved = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    return {name: tensor.to(model.dtype) if tensor.is_floating_point() else tensor for name, tensor in moved.items()}


@contextlib.contextmanager
def _adapter(adapters: Any, name: str | None) -> Iterator[None]:
    """Let one adapter work, or none."""
    if name is None:
        with adapters.disable_adapter():
            yield
    else:
        adapters.set_adapter(name)
        yield


@contextlib.contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Draw from this seed, and give other answers their chance back."""
    import torch

    if seed is None:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
