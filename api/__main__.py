"""`python -m api` serves the API with gunicorn's threads until SIGTERM."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication

from phi4.errors import Phi4Error
from phi4.log import log, set_up
from phi4.settings import Settings, SettingsError, load

if TYPE_CHECKING:
    from flask import Flask

_log = logging.getLogger("api")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
#: Threads that are left for short requests when every waiting place is taken.
_SHORT_REQUEST_THREADS = 16
#: gunicorn's exit code for "the worker could not boot".
_BOOT_FAILED = 4


class _Server(BaseApplication):  # type: ignore[misc]  # gunicorn ships no types
    """One process, many threads: state lives in Redis, so more processes are more containers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        options: dict[str, Any] = {
            "bind": f"{_bracketed(self._settings.host)}:{self._settings.port}",
            "worker_class": "gthread",
            "workers": 1,
            "threads": self._settings.max_waiting_requests + _SHORT_REQUEST_THREADS,
            "timeout": 120,
            "graceful_timeout": 30,
            "keepalive": 15,
            "loglevel": "warning",
            "proc_name": "phi4-api",
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        # Imported here, so that gunicorn's other process stays small: only this one serves.
        from api.app import create_app

        try:
            return create_app(self._settings)
        except Phi4Error as error:
            log(_log, "API cannot start", level=logging.ERROR, code=error.code, error=error.message)
            sys.exit(_BOOT_FAILED)


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
