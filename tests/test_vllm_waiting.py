"""Waiting for vLLM: errors that look like the waiting's own timeout, an engine that stops meanwhile; without vLLM."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from phi4.errors import EngineDead, EngineError, EngineUnavailable
from phi4.settings import Settings
from worker.engines.base import Call
from worker.engines.phi4 import Prompt
from worker.engines.vllm import VllmEngine
from worker.engines.vllm_start import _follow

pytestmark = pytest.mark.timeout(10)


def failed() -> Future[Any]:
    """What a coroutine leaves that raised TimeoutError."""
    future: Future[Any] = Future()
    future.set_exception(TimeoutError("EngineCore said nothing"))
    return future


def test_a_start_that_timed_out_inside_has_failed(tmp_path: Path) -> None:
    """It is not looked at again for ever."""
    with pytest.raises(EngineUnavailable, match="does not start: EngineCore said nothing"):
        _follow(failed(), tmp_path / "stage", lambda stage: None)


def test_a_request_that_timed_out_inside_has_failed() -> None:
    """The engine lives, so the part is tried again."""
    engine = VllmEngine(Settings())
    engine._llm = SimpleNamespace(errored=False)

    with pytest.raises(EngineError, match="TimeoutError: EngineCore said nothing"):
        engine._wait(failed(), Call(request_id="test"), threading.Event())


def test_a_prompt_whose_turn_comes_while_the_engine_stops_is_told_so() -> None:
    """It is another engine's then."""
    with pytest.raises(EngineDead, match="being stopped"):
        VllmEngine(Settings())._render(Prompt("a"), Call(request_id="test"))
