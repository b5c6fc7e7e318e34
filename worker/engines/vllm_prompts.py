"""Turns prompts into what vLLM's AsyncLLM takes: token ids, and tensors of their media."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

from worker.engines.base import as_floats
from worker.engines.phi4 import SAMPLE_RATE, Prompt

#: Texts whose tokens are kept, and how long they may be: those of recordings and pages are a handful.
_TEXTS, _LONGEST = 256, 1_000


class Rendering:
    """The renderer of an AsyncLLM; for many threads at once."""

    def __init__(self, llm: Any) -> None:
        self._llm = llm
        self._kept_tokens = lru_cache(_TEXTS)(self._tokens)

    def render(self, prompt: Prompt) -> Any:
        """Give what `AsyncLLM.generate` takes, in the calling thread; raises what vLLM raises."""
        media: dict[str, Any] = {}
        if prompt.images:
            media["image"] = list(prompt.images)
        if prompt.clips:
            clips = prompt.clips if self._hears_16_bits else map(as_floats, prompt.clips)
            media["audio"] = [(clip, SAMPLE_RATE) for clip in clips]
        if not media:
            return self._rendered({"prompt": prompt.text})
        tokens = self._kept_tokens if len(prompt.text) <= _LONGEST else self._tokens
        raw: dict[str, Any] = {"prompt_token_ids": list(tokens(prompt.text)), "multi_modal_data": media}
        return self._rendered(raw)

    @cached_property
    def _hears_16_bits(self) -> bool:
        """Whether sound is ours to lay out; asked of what was loaded, as vLLM's plugins may be turned off."""
        processor = self._llm.renderer.get_mm_processor().info.get_hf_processor()
        return bool(getattr(processor, "hears_16_bits", False))

    def _tokens(self, text: str) -> Sequence[int]:
        return tuple(self._rendered({"prompt": text})["prompt_token_ids"])

    def _rendered(self, raw: dict[str, Any]) -> Any:
        from vllm.renderers.inputs.preprocess import parse_model_prompt

        (inputs,) = self._llm.renderer.render_cmpl([parse_model_prompt(self._llm.model_config, raw)])
        return inputs
