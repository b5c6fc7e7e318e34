"""The HTTP server: gunicorn's threads, which only requests get that are there, and which no slow client keeps."""

from __future__ import annotations

import logging
import resource
import sys
import threading
import time
from functools import partial
from selectors import EVENT_READ
from types import FrameType
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication
from gunicorn.http.errors import ParseException
from gunicorn.workers.gthread import TConn, ThreadWorker

from api.slow_clients import Bounds, ClientSocket
from phi4.errors import Phi4Error
from phi4.log import log
from phi4.settings import Settings

if TYPE_CHECKING:
    from flask import Flask

_log = logging.getLogger("api")
#: Threads that are left for short requests when every waiting place is taken.
_SHORT_REQUEST_THREADS = 16
#: Connections that are kept open between requests, beside those that hold a thread.
_IDLE_CONNECTIONS = 1_000
#: Files that are open beside connections: Redis, blobs, uploads on disk.
_OTHER_FILES = 300
#: gunicorn's exit code for "the worker could not boot".
_BOOT_FAILED = 4


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's threads, with three differences.

    A connection gets a thread when its request begins to arrive, and keeps it only within the bounds for slow clients.
    With too many connections, those that have been idle the longest are closed. And told to end, it tells the event
    streams, which would else hold it up for its whole grace.
    """

    def enqueue_req(self, conn: TConn) -> None:
        """Hand a connection to a thread; a new one waits for its first bytes beside the others that are idle."""
        if isinstance(conn.sock, ClientSocket):
            super().enqueue_req(conn)
            return
        conn.sock = ClientSocket.over(conn.sock, self.app.bounds)
        conn.timeout = time.monotonic() + self.cfg.keepalive
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, EVENT_READ, partial(self.on_pending_socket_readable, conn))
        if self.nr_conns >= self.worker_connections:
            self._close_one_idle()

    def handle(self, conn: TConn) -> Any:
        """Serve one request, in a thread; an end of the connection is waited for here, not where all are accepted."""
        conn.sock.begin_request()
        goes_on = super().handle(conn)
        if not goes_on:
            conn.close(graceful=True)
        return goes_on

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end: who was about to send something is not waited for."""
        self.app.closing.set()
        for conn in list(self.pending_conns):
            conn.timeout = time.monotonic()
        super().handle_exit(sig, frame)

    def _close_one_idle(self) -> None:
        idle = min((c for c in (self.pending_conns, self.keepalived_conns) if c), key=lambda c: c[0].timeout)
        conn = idle.popleft()
        self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn ships no types
    """One process, many threads: state lives in Redis, so more processes are more of these, on one port or on many."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.closing = threading.Event()
        places = threading.Semaphore(settings.max_slow_clients)
        self.bounds = Bounds(settings.client_patience_seconds, settings.client_bytes_per_second, places)
        super().__init__()

    def load_config(self) -> None:
        """Configure gunicorn."""
        settings = self._settings
        held = settings.max_waiting_requests + settings.max_event_streams + settings.max_slow_clients
        threads = held + _SHORT_REQUEST_THREADS
        options: dict[str, Any] = {
            "bind": f"{_bracketed(settings.host)}:{settings.port}",
            "reuse_port": settings.api_processes > 1,  # the system shares connections out to all that listen
            "worker_class": Worker,
            "workers": 1,
            "threads": threads,
            "worker_connections": _connections(threads),
            "timeout": 120,
            "graceful_timeout": 30,
            "keepalive": 15,
            "control_socket_disable": True,  # it would lie in the home folder, which may be read-only or shared
            "sendfile": False,  # the system would wait for a client that does not read
            "loglevel": "warning",
            "proc_name": "phi4-api",
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Make the application, in the process that serves it."""
        # Imported here, so that gunicorn's other process stays small: only this one serves.
        from api.app import create_app
        from api.problems import malformed_body

        try:
            app = create_app(self._settings, self.closing, runs_batches=True)
        except Phi4Error as error:
            log(_log, "API cannot start", level=logging.ERROR, code=error.code, error=error.message)
            sys.exit(_BOOT_FAILED)
        app.register_error_handler(ParseException, malformed_body)
        return app


def _connections(threads: int) -> int:
    """How many connections may be open: as wanted, or as open files allow; without one left gunicorn's worker dies."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = threads + _IDLE_CONNECTIONS
    files = wanted + _OTHER_FILES if hard == resource.RLIM_INFINITY else min(wanted + _OTHER_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return max(threads + 1, min(wanted, files - _OTHER_FILES))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
