"""What runs inside vLLM's own processes: ties them to the worker, and tells it how far the start has come.

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

#: Names the file through which a starting engine tells its stage.
STAGE_FILE = "PHI4_STAGE_FILE"
#: What vLLM logs when a stage begins; a message that changes costs only the stage's name in `/health`.
_BEGINS = {"Starting to load model": "loading", "Loading weights took": "compiling"}
_PR_SET_PDEATHSIG = 1


def register() -> None:
    """Set up a process of vLLM; does nothing in the worker itself, and no harm when called again."""
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None:
        return
    _die_with(parent.pid)
    _leave_process_group()
    if path := os.environ.get(STAGE_FILE):
        _tell_stages(Path(path))


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
