"""One child process: how it is described, started, listened to and ended; knows nothing of its siblings."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from logging.handlers import RotatingFileHandler
from pathlib import Path

_TETHER = str(Path(__file__).with_name("tether.py"))
_LAST_LINES = 20
_LOG_BYTES = 10_000_000
_LOG_FILES_KEPT = 3
_COLOURS = (36, 33, 35, 32, 34)
# A process that left the group may hold the pipe open for ever.
_LISTENER_SECONDS = 2.0
# Longer than any kill takes, short of a process stuck in the kernel.
_KILL_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Child:
    """A program to keep running.

    `env` is added to the supervisor's own environment. `ready` is asked again and again, for at most `ready_timeout`
    seconds, before the next child starts; it answers at once and does not raise. `log` takes the output (stdout and
    stderr), rotated at 10 MB with 3 old files kept; without it the output is passed through.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[], bool] | None = None
    ready_timeout: float = 60.0
    log: Path | None = None


class Output:
    """Where the children's lines go: their log files, or stdout, there with a coloured name if it is a terminal."""

    def __init__(self, children: Iterable[Child]) -> None:
        children = list(children)
        self._lock = threading.Lock()
        self._logs = {child.log: _open_log(child.log) for child in children if child.log}
        self._prefixes = dict.fromkeys((child.name for child in children), "")
        if sys.stdout.isatty():
            self._prefixes = _coloured([child.name for child in children if child.log is None])

    def write(self, child: Child, line: str) -> None:
        """Pass one line on; a reader that went away (`phi4 up | head`) must not stop the children."""
        if child.log is not None:
            self._logs[child.log].handle(logging.makeLogRecord({"msg": line}))
            return
        with self._lock, contextlib.suppress(OSError, ValueError):
            sys.stdout.write(f"{self._prefixes[child.name]}{line}\n")
            sys.stdout.flush()

    def close(self) -> None:
        """Close the log files."""
        for log in self._logs.values():
            log.close()


def _open_log(path: Path) -> RotatingFileHandler:
    path.parent.mkdir(parents=True, exist_ok=True)
    return RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=_LOG_FILES_KEPT, encoding="utf-8", delay=True)


def _coloured(names: list[str]) -> dict[str, str]:
    width = max(map(len, names), default=0)
    return {
        name: f"\x1b[{_COLOURS[number % len(_COLOURS)]}m{name:<{width}} |\x1b[0m " for number, name in enumerate(names)
    }


class Process:
    """A started child: leader of its own session, so that a terminal's Ctrl-C does not reach it.

    The kernel sends it SIGTERM when the *thread* that made this object ends (Linux), so make it in one that lives on.
    """

    def __init__(self, child: Child, output: Output) -> None:
        self.started_at = time.monotonic()
        self._child, self._output = child, output
        self._last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._group_ended = False
        self._popen = subprocess.Popen(
            [sys.executable, "-I", "-S", _TETHER, str(os.getpid()), *child.argv],
            env={**os.environ, "PYTHONUNBUFFERED": "1", **child.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        self._listener = threading.Thread(target=self._listen, name=f"output of {child.name}", daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        return self._popen.pid

    def exit_code(self) -> int | None:
        """None while it runs; negative: the number of the signal that ended it."""
        return self._popen.poll()

    def terminate(self) -> None:
        """Ask the child, not its group, to end: it alone knows in which order its own children stop."""
        self._popen.terminate()

    def kill(self) -> None:
        """End the child's whole group at once, also what an ended child left in it."""
        if self._group_ended:
            # The number may belong to a stranger by now.
            return
        self._group_ended = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(_KILL_SECONDS)

    def last_lines(self) -> list[str]:
        """The end of what a child that has ended, and its group, said."""
        self._listener.join(_LISTENER_SECONDS)
        return list(self._last_lines)

    def _listen(self) -> None:
        assert self._popen.stdout is not None
        with self._popen.stdout as lines:
            for line in lines:
                text = line.rstrip("\n")
                self._last_lines.append(text)
                self._output.write(self._child, text)


def ending(code: int) -> str:
    """How a child with this exit code ended, in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by {signal.Signals(-code).name} (exit code {code})"
