"""Keeps the process in which PDFs are drawn: within bounds of time and memory, and started again when one ended it."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections import deque
from typing import Any, cast

from phi4.errors import EncryptedPdf, ImageTooSmall, InputError, PageOutOfRange, UnreadablePdf

_ERRORS = {one.code: one for one in (EncryptedPdf, ImageTooSmall, PageOutOfRange, UnreadablePdf)}


class TooCostly(UnreadablePdf):
    """The PDF takes more time or memory to draw than a page may."""


class Drawer:
    """One process for all threads, which take turns: PDFium keeps global state, and no two may be inside it.

    A request may use `cpu_seconds` and `memory` bytes. The process starts when it is first needed, and ends with this
    one: then nobody writes to it any more.
    """

    def __init__(self, *, cpu_seconds: int = 20, memory: int = 2 << 30) -> None:
        self._argv = (sys.executable, "-m", "worker.media.drawing", str(cpu_seconds), str(memory))
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._forgotten: deque[str] = deque()

    def ask(self, do: str, path: str, **more: Any) -> tuple[dict[str, Any], bytes]:
        """Send a request and give its answer. Raises `InputError`, `TooCostly`."""
        with self._lock:
            while self._forgotten:
                self._exchange({"do": "close", "path": self._forgotten.popleft()})
            request = {"do": do, "path": path, **more}
            answer = self._exchange(request)
            if isinstance(answer, int) and answer != -signal.SIGXCPU:
                # What other documents had left in its memory may have ended it: this time the document is alone.
                answer = self._exchange(request)
        if isinstance(answer, int):
            raise TooCostly(reason=f"the process ended with {answer}")
        told, content = answer
        if "error" in told:
            raise _ERRORS.get(told["error"], InputError)(told["message"], **told["details"])
        if "fault" in told:
            raise RuntimeError(told["fault"])
        return told, content

    def end(self) -> None:
        """Let the process end; a request to come starts another."""
        with self._lock:
            if self._process is not None:
                self._process.communicate()
                self._process = None

    def forget(self, path: str) -> None:
        """Have a document closed before the next request; a generator's end may call this in the midst of one."""
        self._forgotten.append(path)

    def _exchange(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes] | int:
        """Give the answer, or what the process ended with."""
        process = self._process = self._process or subprocess.Popen(
            self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            told = json.loads(process.stdout.readline() or "{}")
            content = process.stdout.read(told.get("bytes", 0))
        except OSError:
            told, content = {}, b""
        if told and len(content) == told["bytes"]:
            return cast(dict[str, Any], told), content
        return self._ended(process)

    def _ended(self, process: subprocess.Popen[bytes]) -> int:
        self._process = None
        process.kill()  # it may have closed its pipes and live on
        with contextlib.suppress(OSError):  # of what it did not read any more
            process.communicate()
        return process.wait()
