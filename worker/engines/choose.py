"""Chooses the engine of a worker by its name, and says why."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

from phi4.errors import EngineUnavailable
from phi4.settings import Settings
from worker.engines.base import Engine

BUILT_IN = ("auto", "cpu", "vllm", "transformers")
#: More threads than this gain little on one page and cost memory.
MAX_DEFAULT_THREADS = 8


def create_engine(settings: Settings) -> tuple[Engine, str]:
    """Make the engine that `settings.engine` names and say why it was chosen.

    It is "auto", "cpu", "vllm", "transformers", or "package.module:Factory" for an engine of your own, called without
    arguments. Raises `EngineUnavailable`.
    """
    match settings.engine:
        case "auto":
            return _auto(settings)
        case "cpu":
            return _cpu(settings), "cpu: PHI4_ENGINE asks for it"
        case "vllm":
            return _vllm(settings), "vllm: PHI4_ENGINE asks for it"
        case "transformers":
            return _transformers(settings), "transformers: PHI4_ENGINE asks for it"
        case name if ":" in name:
            return _own(name)(), f"{name}: PHI4_ENGINE names it"
    known = ", ".join(f'"{known}"' for known in BUILT_IN)
    raise EngineUnavailable(
        f'PHI4_ENGINE is "{settings.engine}"; there are {known}, and "package.module:Factory" for your own.'
    )


def is_cpu(settings: Settings) -> bool:
    """Tell whether `create_engine` would make the `cpu` engine."""
    return settings.engine == "cpu" or (settings.engine == "auto" and why_not_vllm() != "")


def why_not_vllm() -> str:
    """Say what keeps "auto" from the GPU engine; empty when nothing does."""
    if not has_cuda_device():
        return "no CUDA device found"
    if importlib.util.find_spec("vllm") is None:
        return "a CUDA device is here, but the package vllm is not installed"
    return ""


def _auto(settings: Settings) -> tuple[Engine, str]:
    if missing := why_not_vllm():
        return _cpu(settings), f"cpu: {missing}"
    return _vllm(settings), "vllm: a CUDA device and vLLM are here"


def has_cuda_device(root: Path = Path("/")) -> bool:
    """Tell whether the NVIDIA driver shows a device; torch would take seconds and memory to say the same."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return False
    return any((root / "proc/driver/nvidia/gpus").glob("*")) or any((root / "dev").glob("nvidia[0-9]*"))


def _vllm(settings: Settings) -> Engine:
    if importlib.util.find_spec("vllm") is None:
        raise EngineUnavailable(
            'PHI4_ENGINE is "vllm", but the package vllm is not installed: pip install "phi4-service[gpu]", '
            'or use "auto" or "cpu".'
        )
    from worker.engines.vllm import VllmEngine

    return VllmEngine(settings)


def _transformers(settings: Settings) -> Engine:
    needed = ("torch", "transformers", "tokenizers", "peft", "safetensors")
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise EngineUnavailable(
            f'PHI4_ENGINE is "transformers", but not installed are {", ".join(missing)}: '
            'pip install "phi4-service[transformers]", or use "auto" or "cpu".'
        )
    from worker.engines.transformers import TransformersEngine

    return TransformersEngine(settings)


def _cpu(settings: Settings) -> Engine:
    # Here, not above: RapidOCR and Moonshine load slowly and are not installed beside every engine.
    try:
        from worker.engines.cpu import CpuEngine
    except ImportError as error:
        raise EngineUnavailable(
            f'The cpu engine needs the package {error.name}: pip install "phi4-service[cpu]".'
        ) from error
    return CpuEngine(threads=settings.cpu_threads or min(_cores(), MAX_DEFAULT_THREADS))


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
