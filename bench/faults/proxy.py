"""A TCP proxy on loopback that can answer slowly, so that a server behind it seems to."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_CHUNK = 1 << 16


@dataclass
class Proxy:
    """Passes connections on to `target`, each answer `delay` seconds late; both may be changed at any time."""

    port: int
    target: int = 0
    delay: float = 0.0
    _sockets: set[socket.socket] = field(default_factory=set)
    _threads: list[threading.Thread] = field(default_factory=list)

    def serve(self, listener: socket.socket) -> None:
        """Accept connections until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                thread = threading.Thread(target=self._connect, args=(near,))
                self._threads.append(thread)
                thread.start()

    def cut(self) -> None:
        """Cut every connection."""
        for one in tuple(self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def join(self) -> None:
        """Wait until every connection is closed."""
        for thread in self._threads:
            thread.join()

    def _connect(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.target)) as far:
            self._sockets |= {near, far}
            back = threading.Thread(target=self._pass_on, args=(far, near, True))
            back.start()
            self._pass_on(near, far, False)
            back.join()
            self._sockets -= {near, far}

    def _pass_on(self, source: socket.socket, sink: socket.socket, late: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                if late and self.delay:
                    time.sleep(self.delay)
                sink.sendall(data)
        # Each direction ends the other.
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxy() -> Iterator[Proxy]:
    """Run a proxy whose target is set later."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = Proxy(listener.getsockname()[1])
        thread = threading.Thread(target=running.serve, args=(listener,))
        thread.start()
        try:
            yield running
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            running.cut()
            running.join()
