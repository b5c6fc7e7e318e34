"""Starts vLLM: its arguments, the model's files, the memory they need, and both adapters."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NoReturn, cast

from phi4.errors import EngineUnavailable
from phi4.settings import Settings
from worker.engines import checkpoint, gpu, memory
from worker.engines.claim import claim, loading_alone
from worker.engines.engine_core import STAGE_FILE, STOCK_MODEL, is_tested
from worker.engines.event_loop import EventLoop
from worker.engines.fold import folded
from worker.engines.serve_args import ADAPTERS, adapter_folder, check_extra, serve_args, server_args

_log = logging.getLogger(__name__)
Stage = Callable[[str], None]
#: How often a start is looked at for the stage it is in.
_LOOK_S = 0.2


def load(settings: Settings, loop: EventLoop, render_threads: int, stage: Stage) -> tuple[Any, dict[str, Any]]:
    """Start an AsyncLLM on `loop`; returns it and its LoRA requests by name. Raises `EngineUnavailable`."""
    folder = find(settings, stage)
    stage("loading")
    arguments = engine_args(serve_args(settings, folder, **kind(settings), render_threads=render_threads))
    mine = gpu.cards()[: settings.tensor_parallel_size]
    with loading_alone(mine, settings.data_dir / "gpus", stage), tempfile.TemporaryDirectory() as told:
        check_memory(arguments, folder)
        os.environ[STAGE_FILE] = str(Path(told) / "stage")
        try:
            adapters = ADAPTERS if settings.serve == "all" else ()
            return _follow(loop.submit(_load(arguments, folder, adapters)), Path(told) / "stage", stage)
        finally:
            del os.environ[STAGE_FILE]


def server_command(settings: Settings, stage: Stage) -> list[str]:
    """The command that runs vLLM's own OpenAI-compatible server. Raises `EngineUnavailable`."""
    folder = find(settings, stage)
    check_memory(engine_args(serve_args(settings, folder, **kind(settings), render_threads=1)), folder)
    arguments = server_args(settings, folder, **kind(settings), render_threads=1)
    # Not `vllm serve`: that needs a package called vllm, and the CPU build goes by another name.
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *arguments]


def find(settings: Settings, stage: Stage) -> Path:
    """Take the GPUs, and locate the model's files, downloading them if need be. Raises `EngineUnavailable`."""
    check_extra(settings)
    cards = gpu.cards()
    set_environment(settings, on_gpu=bool(cards))
    # Before CUDA is looked at, which importing vLLM does.
    claim(cards, settings.tensor_parallel_size, settings.data_dir / "gpus")
    # Before anything is downloaded: wrong arguments should not cost an hour.
    wanted = read(shlex.split(settings.extra_serve_args))
    has_weights = wanted.load_format != "dummy"
    folder = checkpoint.locate(
        settings.checkpoint, settings.checkpoint_revision, settings.hf_token, stage=stage, needs_weights=has_weights
    )
    if settings.serve == "all" or not has_weights:
        return folder
    return folded(folder, settings.serve, settings.data_dir / "folded", stage)


def set_environment(settings: Settings, *, on_gpu: bool) -> None:
    """Set what vLLM reads when it is imported, and what its processes inherit."""
    if on_gpu:
        # Many small copies: OpenMP's threads cost more than they give, and fight with preparation for the cores.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")  # forking a process of many threads hangs
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ[STOCK_MODEL] = str(int(settings.stock_model))
    if settings.hf_token:
        os.environ.setdefault("HF_TOKEN", settings.hf_token)


def kind(settings: Settings) -> dict[str, bool]:
    """Which vLLM this is, as far as its arguments depend on it."""
    return {"on_cpu": on_cpu(), "tuned": not settings.stock_model and is_tested()}


def on_cpu() -> bool:
    """Whether this is vLLM's CPU build."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def read(arguments: Sequence[str]) -> argparse.Namespace:
    """Let vLLM's own parsers read its arguments. Raises `EngineUnavailable` with their complaint.

    What only vLLM's server knows is taken too, and counts for `phi4 serve` alone.
    """
    why = ""
    for parser in (_engine_parser, _server_parser):
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                return cast(argparse.Namespace, parser().parse_args(list(arguments)))
        except (SystemExit, ValueError) as error:
            why = (said.getvalue().strip().splitlines() or [str(error)])[-1]
    raise EngineUnavailable(f"vLLM does not take PHI4_EXTRA_SERVE_ARGS: {why}")


def _engine_parser() -> Any:
    from vllm.engine.arg_utils import AsyncEngineArgs

    return AsyncEngineArgs.add_cli_args(_empty_parser())


def _server_parser() -> Any:
    """The same and more; another import, which the engine can do without."""
    try:
        from vllm.entrypoints.launchers.cli_args import make_arg_parser
    except ImportError:  # in vLLM 0.26
        from vllm.entrypoints.openai.cli_args import make_arg_parser
    return make_arg_parser(_empty_parser())


def _empty_parser() -> Any:
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    return FlexibleArgumentParser(prog="PHI4_EXTRA_SERVE_ARGS")


def engine_args(arguments: Sequence[str]) -> Any:
    """Make vLLM's AsyncEngineArgs. Raises `EngineUnavailable`."""
    from vllm.engine.arg_utils import AsyncEngineArgs

    try:
        return AsyncEngineArgs.from_cli_args(read(arguments))
    except ValueError as error:
        raise EngineUnavailable(f"vLLM does not take PHI4_EXTRA_SERVE_ARGS: {first_line(error)}") from None


def check_memory(arguments: Any, folder: Path) -> None:
    """Compare what the model needs with the cards there are. Raises `memory.NotEnoughMemory`, saying what to set."""
    shape, cards = memory.Shape.of(checkpoint.read_config(folder)), () if on_cpu() else gpu.cards()
    if arguments.quantization is not None:  # the arithmetic is that of 16-bit weights
        memory.check_split(shape, cards, arguments.tensor_parallel_size)
        return
    memory.check(
        shape,
        cards,
        max_model_len=arguments.max_model_len,
        tensor_parallel=arguments.tensor_parallel_size,
        adapters=arguments.max_loras if arguments.enable_lora else 0,
        utilization=arguments.gpu_memory_utilization or memory.UTILIZATION,
        kv_item_bytes=1 if "fp8" in str(arguments.kv_cache_dtype) else 2,
    )


async def _load(arguments: Any, folder: Path, names: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    from vllm.lora.request import LoRARequest
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    llm = AsyncLLM.from_engine_args(arguments, usage_context=UsageContext.OPENAI_API_SERVER)
    adapters = {}
    try:
        for number, name in enumerate(names, start=1):
            adapters[name] = LoRARequest(name, number, str(adapter_folder(folder, name)))
            # Here, not with the first request: an adapter that cannot be loaded there ends the engine for everybody.
            await llm.add_lora(adapters[name])
    except BaseException:
        llm.shutdown()
        raise
    return llm, adapters


def _follow(loading: Future[tuple[Any, dict[str, Any]]], told: Path, stage: Stage) -> tuple[Any, dict[str, Any]]:
    seen = "loading"
    while True:
        try:
            return loading.result(timeout=_LOOK_S)
        except TimeoutError as error:
            if loading.done() and loading.exception() is error:
                _fail(error)
            if told.exists() and (now := told.read_text()) not in ("", seen):
                stage(now)
                seen = now
        except Exception as error:
            _fail(error)


def _fail(error: Exception) -> NoReturn:
    _log.error("vLLM does not start", exc_info=error)
    raise EngineUnavailable(f"vLLM does not start: {first_line(error)}") from None


def first_line(error: BaseException) -> str:
    """The beginning of what an error says: vLLM's go on for pages."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]
