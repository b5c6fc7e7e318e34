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
    _sockets: list[socket.socket] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    def serve(self, listener: socket.socket) -> None:
        """Accept connections until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                self._connect(near)

    def close(self) -> None:
        """Cut every connection."""
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            one.close()

    def _connect(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(("127.0.0.1", self.target), timeout=5)
        except OSError:
            near.close()
            return
        far.settimeout(None)
        self._sockets += [near, far]
        for source, sink, late in ((near, far, False), (far, near, True)):
            thread = threading.Thread(target=self._pass_on, args=(source, sink, late), daemon=True)
            self._threads.append(thread)
            thread.start()

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
            running.close()
