"""`phi4 up`: the whole service on this machine, as child processes of one supervisor."""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from cli.child import Child
from cli.embedded import EmbeddedValkey, port_is_taken
from cli.supervisor import Supervisor
from phi4.errors import ServiceError
from phi4.settings import Settings, variable_of
from worker.engines.choose import is_cpu

_API = "api"
#: An engine on a GPU may have to load, and compile, for minutes.
_ENGINE_READY_S = 1_800.0
#: With more, their receivers of webhooks and reapers only get in each other's way.
_MOST_SIDE_WORKERS = 8
_MOST_API_PROCESSES = 4


class ServicePortTaken(ServiceError):
    """Another program listens on the service's port."""

    code = "port_taken"
    retryable = False


class DataFolderUnusable(ServiceError):
    """The data folder cannot be written."""

    code = "data_folder_unusable"
    retryable = False


@dataclass(frozen=True, slots=True)
class Local:
    """A service about to run here."""

    url: str
    settings: Settings
    supervisor: Supervisor
    webhook_secret: str
    env: Mapping[str, str]  #: what its processes are told, so that more of them can be started


@contextmanager
def prepared(settings: Settings, *, report: Callable[[str], None], to_files: bool) -> Iterator[Local]:
    """Describe the service's processes; the data folder is held until the block ends.

    `to_files` keeps the processes' output in `<data_dir>/logs`. Raises `ServicePortTaken`, `DataFolderUnusable`,
    `AlreadyRunning` and `NoServerProgram`.
    """
    if port_is_taken(settings.host, settings.port):
        raise ServicePortTaken(
            f"Port {settings.port} is in use; set PORT to another one, e.g. PORT={settings.port + 1}."
        )
    _make_writable(settings.data_dir)
    with _redis(settings) as (redis_url, valkey):
        secret = settings.webhook_secret or _kept_secret(settings.data_dir / "webhook-secret")
        env = _as_environment(settings) | {"REDIS_URL": redis_url, "PHI4_WEBHOOK_SECRET": secret}
        children = [*valkey, *_service(settings, env, to_files=to_files)]
        grace = settings.drain_seconds + 15
        yield Local(_url(settings), settings, Supervisor(children, grace=grace, on_event=report), secret, env)


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise DataFolderUnusable(
            f"The data folder {folder} cannot be written ({error.strerror}); set PHI4_DATA_DIR to another one."
        ) from None


def up(settings: Settings) -> int:
    """Run the service until Ctrl-C; returns the exit code."""

    def report(message: str) -> None:
        _say(message)
        if message == f"{_API} is ready":
            _say(f"phi4 is ready: open {_url(settings)} in a browser; its API is described on {_url(settings)}/docs")

    with prepared(settings, report=report, to_files=False) as local:
        _say(f"phi4 starts on {local.url} (data in {settings.data_dir}); Ctrl-C drains, a second one stops at once")
        return local.supervisor.run(install_signals=True)


@contextmanager
def _redis(settings: Settings) -> Iterator[tuple[str, list[Child]]]:
    """The caller's Redis when REDIS_URL is set, else one of our own."""
    if "redis_url" in settings.model_fields_set:
        yield settings.redis_url, []
        return
    with EmbeddedValkey(settings.data_dir / "valkey") as valkey:
        yield valkey.url, [valkey.child()]


def _service(settings: Settings, env: dict[str, str], *, to_files: bool) -> Iterator[Child]:
    """The engine first, since it loads longest; the API last, so that it is the first to stop."""
    sides, apis = side_workers(settings), api_processes(settings)
    env = env | {"PHI4_API_PROCESSES": str(apis)}
    # The first API's figures are where the settings say, the workers' next to them, those of more APIs behind them all.
    programs = [
        ("infer", ("worker", "infer"), 1),
        *((name, ("worker", "side"), offset) for offset, name in enumerate(_numbered("side", sides), 2)),
        *((name, ("api",), offset) for offset, name in enumerate(_numbered(_API, apis)[1:], sides + 2)),
        (_API, ("api",), 0),
    ]
    for name, module, offset in programs:
        port = settings.metrics_port + offset if settings.metrics_port else 0
        yield Child(
            name,
            (sys.executable, "-m", *module),
            env=env | {"PHI4_METRICS_PORT": str(port), "MALLOC_ARENA_MAX": _heaps(settings, name)},
            ready=(lambda: is_ready(_url(settings))) if name == _API else None,
            ready_timeout=_ENGINE_READY_S,
            log=settings.data_dir / "logs" / f"{name}.log" if to_files else None,
        )


def _heaps(settings: Settings, name: str) -> str:
    """How many heaps a process may have: with a thread for each request, glibc would keep tens of MB in each of them.

    The cpu engine's threads take 15 MB and more at a time, which left holes of 170 MB in two heaps and none in one.
    """
    return "1" if name == "infer" and is_cpu(settings) else "2"


def _numbered(name: str, count: int) -> list[str]:
    return [name, *(f"{name}-{number}" for number in range(2, count + 1))]


def api_processes(settings: Settings) -> int:
    """How many processes take requests: one takes in 50 to 90 recordings of 1 MB a second."""
    return settings.api_processes or max(1, min(_MOST_API_PROCESSES, (os.cpu_count() or 1) // 8))


def side_workers(settings: Settings) -> int:
    """How many processes prepare jobs: one core cuts about twelve clips of 30 s, or ten pages, a second."""
    return settings.side_workers or max(1, min(_MOST_SIDE_WORKERS, (os.cpu_count() or 1) // 4))


def is_ready(url: str) -> bool:
    """Whether a job sent to this service now would be worked on."""
    with contextlib.suppress(httpx.TransportError):
        # A proxy set for the outside world cannot reach this machine's own loopback.
        return httpx.get(f"{url}/readyz", timeout=2, trust_env=False).status_code == 200
    return False


def _url(settings: Settings) -> str:
    """Where this machine itself finds the service."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _as_environment(settings: Settings) -> dict[str, str]:
    """What was chosen, wherever it was chosen, for the processes to agree on."""
    chosen = {variable_of(name): _text(getattr(settings, name)) for name in settings.model_fields_set}
    return {"PHI4_LOG_FORMAT": "text", "PHI4_DATA_DIR": str(settings.data_dir)} | chosen


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _kept_secret(path: Path) -> str:
    """The secret that signs webhooks: made once, kept beside the data."""
    if path.exists():
        return path.read_text().strip()
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(secret)
    return secret


def _say(message: str) -> None:
    print(message, flush=True)
