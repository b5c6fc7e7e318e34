"""One attempt at an answer and what becomes of it: asked again when it runs in circles, parsed when it is JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from phi4.errors import AnswerCut, AnswerLoops, EngineError, TooManyImages
from worker.engines.base import Answer, Call
from worker.engines.phi4 import Prompt, warmer
from worker.engines.serve_args import MediaLimits


@dataclass(frozen=True, slots=True)
class Said:
    """What came out of the model for one attempt; `reason` is "stop" or "length"."""

    text: str
    tokens: int
    reason: str
    loops: bool = False
    prompt_tokens: int = 0


def answer(prompt: Prompt, call: Call, ask: Callable[[Prompt, int], Said]) -> Answer:
    """Let `ask(prompt, number of the attempt)` try until the answer does not run in circles, each time warmer.

    Raises `AnswerLoops` when none does, `AnswerCut` when the JSON that was asked for has no end, and what `ask` raises.
    """
    for number, temperature in enumerate((prompt.temperature, *prompt.retries)):
        if number:
            call.on_restart()
        said = ask(warmer(prompt, temperature), number)
        if not said.loops and not _would_go_on(prompt, said):
            return Answer(
                said.text.strip(),
                finish_reason="length" if said.reason == "length" else "stop",
                prompt_tokens=said.prompt_tokens,
                completion_tokens=said.tokens,
                data=_parsed(prompt, said) if prompt.schema is not None else None,
            )
    raise AnswerLoops(f"{_why_given_up(said)}; tried {1 + len(prompt.retries)} times.")


def check_counts(prompt: Prompt, limits: MediaLimits) -> None:
    """Raise `TooManyImages` when the prompt holds more pictures or clips than one may."""
    if len(prompt.images) > limits.images:
        raise TooManyImages(f"The question is asked over {len(prompt.images)} images; at most {limits.images} fit.")
    if len(prompt.clips) > limits.clips:
        raise TooManyImages(f"The question is asked over {len(prompt.clips)} clips; at most {limits.clips} fit.")


def _would_go_on(prompt: Prompt, said: Said) -> bool:
    """Whether an answer was cut that nobody asked to be so short."""
    return said.reason == "length" and bool(prompt.retries) and not prompt.cut_is_wanted


def _why_given_up(said: Said) -> str:
    if said.loops:
        return "The model repeats itself without end"
    return f"The answer has no end within {said.tokens} tokens; name `params.max_tokens` to be given what fits in them"


def _parsed(prompt: Prompt, said: Said) -> Any:
    try:
        # Not strict: the grammar lets a raw line break stand inside a string.
        return json.loads(said.text, strict=False)
    except ValueError:
        if said.reason == "length":
            raise AnswerCut(f"The answer had no end after {said.tokens} tokens, so it is no JSON.") from None
        if prompt.stop:
            raise AnswerCut("One of the words in `stop` ended the answer before the JSON had its end.") from None
        raise EngineError("The answer is no JSON although it was held to a schema.") from None
