"""What runs inside vLLM's own processes: our model class, ties to the worker, and how far the start has come.

vLLM calls `register` in each of its processes through the entry point `vllm.general_plugins` (see pyproject.toml).
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import multiprocessing
import os
import signal
from pathlib import Path

#: Set to "1", vLLM's own model class runs.
STOCK_MODEL = "PHI4_STOCK_MODEL"
#: vLLM's releases that our model class was tested with.
_TESTED = ("0.26.", "0.32.")
#: Names the file through which a starting engine tells its stage.
STAGE_FILE = "PHI4_STAGE_FILE"
#: What vLLM logs when a stage begins; a message that changes costs only the stage's name in `/health`.
_BEGINS = {"Starting to load model": "loading", "Loading weights took": "compiling"}
_PR_SET_PDEATHSIG = 1
_log = logging.getLogger(__name__)


def register() -> None:
    """Set up a process of vLLM; in the worker itself it only names our model; no harm when called again."""
    if os.environ.get(STOCK_MODEL) != "1":
        _name_our_model()
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None:
        return
    _die_with(parent.pid)
    _leave_process_group()
    if path := os.environ.get(STAGE_FILE):
        _tell_stages(Path(path))


def is_tested() -> bool:
    """Whether what this project puts in vLLM's place was tested with the release that is installed."""
    from vllm import __version__

    return str(__version__).startswith(_TESTED)


def _name_our_model() -> None:
    from vllm import ModelRegistry, __version__

    if is_tested():
        ModelRegistry.register_model("Phi4MMForCausalLM", "worker.engines.fast_model:FastPhi4MM")
    else:
        _log.warning(
            "vLLM %s was not tested with the faster encoders: its own, slower model and scheduling run. Tested: %s",
            __version__,
            ", ".join(f"{release}x" for release in _TESTED),
        )


def _die_with(parent: int) -> None:
    """End with the worker, however it ends: else an orphan would hold the card's memory. Linux only."""
    if not hasattr(signal, "SIGKILL") or not Path("/proc/self").exists():
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it went before the kernel was told
        os._exit(1)


def _leave_process_group() -> None:
    """Ctrl-C and SIGTERM to the group reach the worker, which drains; this process ends when the worker says so."""
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)


class _StageHandler(logging.Handler):
    def __init__(self, path: Path) -> None:
        super().__init__(logging.INFO)
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        for message, stage in _BEGINS.items():
            if str(record.msg).startswith(message):
                # Nobody may be listening any more; vLLM must not fail for that.
                with contextlib.suppress(OSError):
                    self._path.write_text(stage)


def _tell_stages(path: Path) -> None:
    logger = logging.getLogger("vllm")
    if not any(isinstance(handler, _StageHandler) for handler in logger.handlers):
        logger.addHandler(_StageHandler(path))
