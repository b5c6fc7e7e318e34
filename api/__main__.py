"""`python -m api` serves the API with gunicorn's threads until SIGTERM."""

from __future__ import annotations

import logging
import sys
import threading
from types import FrameType
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.workers.gthread import ThreadWorker

from api.slow_clients import Bodies, Watch, limit_sending
from phi4.errors import Phi4Error
from phi4.log import log, set_up
from phi4.settings import Settings, SettingsError, load

_log = logging.getLogger("api")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
#: Threads that are left for short requests when every waiting place is taken.
_SHORT_REQUEST_THREADS = 16
#: gunicorn's exit code for "the worker could not boot".
_BOOT_FAILED = 4


#: Connections that are kept open between requests, beside those that hold a thread.
_IDLE_CONNECTIONS = 1_000


class _Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's threads, which no client holds for long; told to end, it tells the streams to end too."""

    def handle(self, conn: Any) -> Any:
        """Serve one request of a connection, for as long as its client keeps up."""
        watch, patience = self.app.watch, self.app.settings.client_seconds
        limit_sending(conn.sock, patience)
        watch.allow(conn.sock, patience)
        try:
            return super().handle(conn)
        finally:
            watch.done(conn.sock)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.app.closing.set()
        super().handle_exit(sig, frame)


class _Server(BaseApplication):  # type: ignore[misc]  # gunicorn ships no types
    """One process, many threads: state lives in Redis, so more processes are more containers."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.watch = Watch()
        self.closing = threading.Event()
        super().__init__()

    def load_config(self) -> None:
        settings = self.settings
        held = settings.max_waiting_requests + settings.max_event_streams + settings.max_uploads
        threads = held + _SHORT_REQUEST_THREADS
        options: dict[str, Any] = {
            "bind": f"{_bracketed(settings.host)}:{settings.port}",
            "worker_class": _Worker,
            "workers": 1,
            "threads": threads,
            "worker_connections": threads + _IDLE_CONNECTIONS,
            "timeout": 120,
            "graceful_timeout": 30,
            "keepalive": 15,
            "loglevel": "warning",
            "proc_name": "phi4-api",
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Bodies:
        # Imported here, so that gunicorn's other process stays small: only this one serves.
        from api.app import create_app

        try:
            app = create_app(self.settings, self.closing)
        except Phi4Error as error:
            log(_log, "API cannot start", level=logging.ERROR, code=error.code, error=error.message)
            sys.exit(_BOOT_FAILED)
        settings = self.settings
        longest = settings.max_body_mb << 20
        return Bodies(app, self.watch, most=settings.max_uploads, patience=settings.client_seconds, longest=longest)


def check_address(settings: Settings) -> None:
    """Refuse to serve strangers without keys. Raises `SettingsError`."""
    if settings.host not in _LOOPBACK and not settings.allow_anonymous:
        raise SettingsError(
            f"PHI4_HOST={settings.host!r}: without keys anyone who reaches this address may use the service; "
            "keep 127.0.0.1, or set PHI4_ALLOW_ANONYMOUS=1 to allow that."
        )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def main() -> None:
    """Serve until told to stop."""
    try:
        settings = load()
        check_address(settings)
    except SettingsError as error:
        sys.exit(str(error))
    set_up(settings.log_format, settings.log_level)
    log(_log, "API starts", host=settings.host, port=settings.port)
    _Server(settings).run()


if __name__ == "__main__":
    main()
