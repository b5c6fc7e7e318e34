"""The vLLM engine with answers of a fixed length: random weights would end them anywhere, or loop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from phi4.settings import load
from worker.engines.base import Call
from worker.engines.phi4 import Prompt
from worker.engines.vllm import VllmEngine


class Fixed(VllmEngine):
    """Every answer has just `max_tokens` tokens; loops are not looked for."""

    def __init__(self) -> None:
        super().__init__(load())

    def sampling(self, prompt: Prompt, max_tokens: int) -> Any:
        """As the engine's own, but nothing ends the answer early."""
        sampling = super().sampling(replace(prompt, stop=()), max_tokens)
        sampling.ignore_eos = True
        sampling.stop_token_ids = []
        return sampling

    def _ask(self, prompt: Prompt, call: Call, number: int) -> Any:
        return super()._ask(replace(prompt, retries=()), call, number)
