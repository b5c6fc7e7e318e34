"""Clients that send or take slowly: how long each may hold a thread, and how many may send at once.

gunicorn's threads read bodies and write answers with plain blocking calls, so a client that stops half-way would hold
its thread for ever. A watch stops reading from connections that are late; what the application then finds is a body cut
short. A proxy that buffers requests does this better, for anything but loopback.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask, request

from phi4.errors import TooManyUploads

#: A body may take the client's patience and as long as it needs at this rate.
SLOWEST_BYTES_PER_S = 16_000
#: What is still on its way from a client whose upload was refused.
_REST_S = 2.0
_EVERY_S = 0.25
_REFUSED = "phi4.refused"
_BLOCK = 1 << 16

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Watch:
    """Knows until when each connection must have sent its request, and stops reading from those that are late."""

    def __init__(self) -> None:
        self._until: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def allow(self, connection: socket.socket, seconds: float) -> None:
        """Give a connection that long from now."""
        with self._lock:
            self._until[connection] = time.monotonic() + seconds
            if self._thread is None:
                # Not before: gunicorn forks, and threads stay behind.
                self._thread = threading.Thread(target=self._look, name="slow-clients", daemon=True)
                self._thread.start()

    def done(self, connection: socket.socket) -> None:
        """Forget a connection: its request has come, or it is gone."""
        with self._lock:
            self._until.pop(connection, None)

    def _look(self) -> None:
        while True:
            time.sleep(_EVERY_S)
            now = time.monotonic()
            with self._lock:
                late = [connection for connection, until in self._until.items() if until < now]
                for connection in late:
                    del self._until[connection]
                    # Closed meanwhile, by its own thread.
                    with contextlib.suppress(OSError):
                        connection.shutdown(socket.SHUT_RD)


def limit_sending(connection: socket.socket, seconds: float) -> None:
    """Let a write to a client that takes nothing fail after so long."""
    whole = int(seconds)
    timeout = struct.pack("ll", whole, int((seconds - whole) * 1e6))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)


class Bodies:
    """WSGI middleware: at most `most` bodies are being read at once, each in bounded time."""

    def __init__(self, app: Wsgi, watch: Watch, *, most: int, patience: float, longest: int) -> None:
        self._app = app
        self._watch = watch
        self._room = threading.BoundedSemaphore(most)
        self._patience = patience
        self._longest = longest

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Run the application over a body that is watched."""
        connection = environ["gunicorn.socket"]
        length = _length(environ)
        if length == 0:
            self._watch.done(connection)
            return self._app(environ, start_response)
        if not self._room.acquire(blocking=False):
            self._watch.allow(connection, _REST_S)
            environ[_REFUSED] = True
            return self._app(environ, start_response)
        expected = self._longest if length is None else min(length, self._longest)
        self._watch.allow(connection, self._patience + expected / SLOWEST_BYTES_PER_S)
        body = _Body(environ["wsgi.input"], length, lambda: self._end(connection))
        environ["wsgi.input"] = body
        try:
            return self._app(environ, start_response)
        finally:
            body.end()

    def _end(self, connection: socket.socket) -> None:
        self._watch.done(connection)
        self._room.release()


def _length(environ: dict[str, Any]) -> int | None:
    """The body's length in bytes; None when only its end will tell."""
    if environ.get("HTTP_TRANSFER_ENCODING"):
        return None
    return int(environ.get("CONTENT_LENGTH") or 0)


class _Body:
    """A request's body that says, once, when it was read or is of no more interest."""

    def __init__(self, stream: Any, length: int | None, on_end: Callable[[], None]) -> None:
        self._stream = stream
        self._left = length
        self._on_end: Callable[[], None] | None = on_end

    def end(self) -> None:
        """Say it now."""
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end()

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes; fewer mean the end."""
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(_BLOCK), b""))
        return self._seen(self._stream.read(size), size)

    def readline(self, size: int = -1) -> bytes:
        """Read a line."""
        line: bytes = self._stream.readline() if size is None or size < 0 else self._stream.readline(size)
        return self._seen(line, len(line) or 1)

    def _seen(self, data: bytes, asked: int) -> bytes:
        if self._left is not None:
            self._left -= len(data)
        if (self._left is not None and self._left <= 0) or len(data) < asked:
            self.end()
        return data


def install(app: Flask) -> None:
    """Answer refused uploads like every other error."""

    @app.before_request
    def _refuse() -> None:
        if request.environ.get(_REFUSED):
            raise TooManyUploads
