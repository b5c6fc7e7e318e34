"""Chooses the engine of a worker by its name, and says why."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

from worker.engines.base import Engine

BUILT_IN = ("auto", "cpu")
#: More threads than this gain little on one page and cost memory.
MAX_DEFAULT_THREADS = 8
_NO_VLLM = "this version has no vLLM engine yet"


class EngineUnavailable(RuntimeError):
    """`PHI4_ENGINE` names an engine that cannot be had here."""


def create_engine(name: str, *, threads: int | None = None) -> tuple[Engine, str]:
    """Make the engine called `name` and say why it was chosen; `threads` None takes what the machine has.

    `name` is "auto", "cpu", or "package.module:Factory" for an engine of your own, called without arguments.
    Raises `EngineUnavailable`.
    """
    if name == "auto":
        return _cpu(threads), f"cpu: {why_not_vllm()}"
    if name == "cpu":
        return _cpu(threads), "cpu: PHI4_ENGINE asks for it"
    if name == "vllm":
        raise EngineUnavailable(f'PHI4_ENGINE is "vllm", but {_NO_VLLM}; use "auto" or "cpu".')
    if ":" in name:
        return _own(name)(), f"{name}: PHI4_ENGINE names it"
    known = ", ".join(f'"{known}"' for known in BUILT_IN)
    raise EngineUnavailable(f'PHI4_ENGINE is "{name}"; there are {known}, and "package.module:Factory" for your own.')


def why_not_vllm() -> str:
    """Say what keeps "auto" from the GPU engine."""
    if not has_cuda_device():
        return "no CUDA device found"
    if importlib.util.find_spec("vllm") is None:
        return "a CUDA device is here, but the package vllm is not installed"
    return f"a CUDA device and vLLM are here, but {_NO_VLLM}"


def has_cuda_device(root: Path = Path("/")) -> bool:
    """Tell whether the NVIDIA driver shows a device; torch would take seconds and memory to say the same."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return False
    return any((root / "proc/driver/nvidia/gpus").glob("*")) or any((root / "dev").glob("nvidia[0-9]*"))


def _cpu(threads: int | None) -> Engine:
    # Here, not above: RapidOCR and Moonshine load slowly and are not installed beside every engine.
    try:
        from worker.engines.cpu import CpuEngine
    except ImportError as error:
        raise EngineUnavailable(
            f'The cpu engine needs the package {error.name}: pip install "phi4-service[cpu]".'
        ) from error
    return CpuEngine(threads=threads or min(_cores(), MAX_DEFAULT_THREADS))


def _cores() -> int:
    # Only Linux can say which cores this process may use.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _own(name: str) -> Callable[[], Engine]:
    """Find the factory behind "package.module:Factory"."""
    module, _, attribute = name.partition(":")
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise EngineUnavailable(f'PHI4_ENGINE is "{name}", but that cannot be imported: {error}') from error
    if not callable(factory):
        raise EngineUnavailable(f'PHI4_ENGINE is "{name}", but {attribute} makes no engine: it cannot be called.')
    made: Callable[[], Engine] = factory
    return made
