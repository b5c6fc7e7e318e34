"""The order of a start of vLLM; that it starts is shown by the engine's tests."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from phi4.settings import load
from tests.test_claim import CARDS
from worker.engines import gpu, vllm_start


def _is_held(lock: Path) -> bool:
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_memory_is_measured_and_claimed_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the cards that the model goes to; afterwards the next worker has its turn."""
    settings = load(data_dir=tmp_path, tensor_parallel_size=2)
    locks = [tmp_path / "gpus" / f"{card.uuid}.loading" for card in CARDS]
    held: dict[str, list[bool]] = {}

    def note(step: str) -> Any:
        def noted(*_: Any) -> tuple[str, dict[str, Any]]:
            held[step] = [lock.exists() and _is_held(lock) for lock in locks]
            return "llm", {}

        return noted

    monkeypatch.setattr(gpu, "cards", lambda: CARDS)
    monkeypatch.setattr(vllm_start, "find", lambda *_: tmp_path)
    monkeypatch.setattr(vllm_start, "kind", lambda _: {"on_cpu": True, "tuned": False})
    monkeypatch.setattr(vllm_start, "serve_args", lambda *_, **__: [])
    monkeypatch.setattr(vllm_start, "engine_args", lambda _: None)
    monkeypatch.setattr(vllm_start, "check_memory", note("checked"))
    monkeypatch.setattr(vllm_start, "_load", Mock())
    monkeypatch.setattr(vllm_start, "_follow", note("loaded"))

    assert vllm_start.load(settings, Mock(), 1, print) == ("llm", {})

    assert held == {"checked": [True, True, False, False], "loaded": [True, True, False, False]}
    assert not any(_is_held(lock) for lock in locks[:2])
