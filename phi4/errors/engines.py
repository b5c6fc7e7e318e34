"""Engines that cannot answer, or cannot run."""

from __future__ import annotations

from phi4.errors.base import Phi4Error


class EngineError(Phi4Error):
    """The engine failed on this part."""

    code = "engine_failed"
    category = "engine"
    retryable = True


class CannotAnswer(EngineError):
    """This engine cannot answer this."""

    code = "engine_cannot_answer"
    retryable = False


class AnswerLoops(EngineError):
    """The model repeats itself without end."""

    code = "answer_loops"
    retryable = False


class AnswerCut(EngineError):
    """The answer was cut before its JSON ended; give it more `max_tokens`."""

    code = "answer_cut"
    retryable = False


class EngineUnavailable(EngineError):
    """The engine that was asked for cannot be had here; the message says what to set or install."""

    code = "engine_unavailable"
    retryable = False


class EngineDead(EngineError):
    """The engine died; the part goes back to the queue."""

    code = "engine_dead"
