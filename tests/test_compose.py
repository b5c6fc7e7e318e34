"""docker-compose.yml, gpu.Dockerfile and what lies beside them: checked as files, since Docker is not everywhere."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from configparser import ConfigParser
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from phi4.settings import Settings, load, variable_of
from tests.conftest import ROOT
from worker.engines.serve_args import MemoryTerms

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "gpu.Dockerfile").read_text()
#: Read by compose itself, not by the service.
COMPOSE_ONLY = {"PHI4_GPU_COUNT"}
WORKERS = ("worker-side", "worker-gpu", "worker-speech", "worker-cpu")


def test_compose_itself_takes_the_file() -> None:
    """With every profile; it needs no engine for that."""
    command = ["docker", "compose"]
    if shutil.which("docker") is None or subprocess.run([*command, "version"], capture_output=True).returncode:
        pytest.skip("`docker compose` is not installed")
    profiles = [word for name in ("cpu", "speech", "monitoring") for word in ("--profile", name)]
    ran = subprocess.run(
        [*command, *profiles, "config", "--quiet"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )

    assert (ran.returncode, ran.stderr) == (0, "")


def test_every_service_comes_back_by_itself() -> None:
    """After a crash and after the machine's restart."""
    assert {name: service.get("restart") for name, service in SERVICES.items()} == dict.fromkeys(SERVICES, "always")


def test_every_container_can_say_how_it_is() -> None:
    """Foreign images by a check here, ours by the one in the Dockerfile, which is looked at below."""
    assert all("healthcheck" in service for service in SERVICES.values() if "build" not in service)


def test_no_secret_is_written_down() -> None:
    """Passwords, tokens and secrets come from .env, which is not kept and not sent into images."""
    written = (ROOT / "docker-compose.yml").read_text() + DOCKERFILE

    assert re.findall(r"(?i)(?:password|secret|token|api_?key)\S*[:=]\s*[^\s$]", written) == []
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()
    assert (ROOT / ".dockerignore").read_text().startswith("*\n")


def test_no_image_is_left_to_chance() -> None:
    """Foreign images are pinned to a version; ours are built from the Dockerfile's stages."""
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE))
    for service in SERVICES.values():
        if build := service.get("build"):
            assert build["target"] in stages
        else:
            assert re.search(r":v?\d+\.\d+", service["image"])
    assert re.findall(r"^ARG PYTHON_\w+=(\S+)$", DOCKERFILE, re.MULTILINE) == [
        "3.11-slim-bookworm",
        "3.12-slim-bookworm",
    ]


def test_nothing_but_the_api_is_reached_from_outside_and_that_on_loopback() -> None:
    """Redis has no published port at all; the API knows where its own is, and so whether it may do without keys."""
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert set(published) == {"api", "prometheus", "grafana", "flower"}
    assert all(port.startswith(("127.0.0.1:", "${PHI4_PUBLISH:-127.0.0.1}:")) for p in published.values() for port in p)
    assert SERVICES["api"]["environment"]["PHI4_PUBLISH"] == "${PHI4_PUBLISH:-127.0.0.1}"
    assert "PHI4_ALLOW_ANONYMOUS" not in SERVICES["api"]["environment"]


def test_redis_keeps_every_job() -> None:
    """Written every second, on a volume, and nothing is ever evicted."""
    command = " ".join(SERVICES["valkey"]["command"])

    assert "--appendonly yes" in command
    assert "--appendfsync everysec" in command
    assert "--maxmemory-policy noeviction" in command
    assert SERVICES["valkey"]["volumes"] == ["valkey:/data"]


def test_workers_may_drain_before_they_are_killed() -> None:
    """The grace of each is longer than PHI4_DRAIN_SECONDS."""
    grace = {name: int(SERVICES[name]["stop_grace_period"].removesuffix("s")) for name in WORKERS}

    assert all(seconds > load().drain_seconds for seconds in grace.values()), grace


def test_the_gpu_worker_keeps_its_model_and_has_room_for_vllm() -> None:
    """Model and compiled code on a volume, shared memory, and the GPUs."""
    worker = SERVICES["worker-gpu"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]

    assert "models:/models" in worker["volumes"]
    assert worker["shm_size"] == "8gb"
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert "HF_HOME=/models" in DOCKERFILE


def test_a_speech_worker_stands_beside_the_gpu_worker() -> None:
    """It differs in what it serves and in its share of the memory, which wins over the one in .env."""
    gpu, speech = dict(SERVICES["worker-gpu"]), dict(SERVICES["worker-speech"])
    ours = speech.pop("environment")
    extra = ours.pop("PHI4_EXTRA_SERVE_ARGS").replace("${PHI4_EXTRA_SERVE_ARGS:-}", "--gpu-memory-utilization 0.6")
    settings = load(serve=ours.pop("PHI4_SERVE"), extra_serve_args=extra)

    assert (speech.pop("profiles"), ours) == (["speech"], gpu.pop("environment"))
    assert speech == gpu
    assert (settings.serve, MemoryTerms.of(settings).utilization) == ("speech", 0.3)


def test_containers_can_do_no_more_than_they_need() -> None:
    """Ours run as another user than root, on a root file system they cannot write, and start no shell as PID 1."""
    for name in ("api", *WORKERS):
        service = SERVICES[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["init"] is True
    for stage in re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]:
        if "ENTRYPOINT" in stage:
            assert stage.index("USER 10001") < stage.index("ENTRYPOINT [")
            assert "HEALTHCHECK" in stage
            assert stage.index("--require-hashes") < stage.index("COPY phi4 phi4"), "code after the lock"


def test_every_file_that_is_copied_is_there_and_sent() -> None:
    """Build context and Dockerfile agree."""
    sent = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    for source in re.findall(r"^COPY (\S+) ", DOCKERFILE, re.MULTILINE):
        assert (ROOT / source).exists(), source
        assert Path(source).parts[0] in sent


def test_mounted_files_are_there() -> None:
    """Prometheus' settings and alerts, Grafana's provisioning and dashboards."""
    mounted = [v.split(":")[0] for s in SERVICES.values() for v in s.get("volumes", []) if v.startswith("./")]

    assert len(mounted) == 4
    assert all((ROOT / path).exists() for path in mounted)


def test_the_example_environment_lists_every_setting_with_its_default() -> None:
    """Both ways: nothing is missing, nothing is made up, and read as compose reads it, it changes nothing."""
    uncommented = re.sub(r"^#(?=[A-Z0-9_]+=)", "", (ROOT / ".env.example").read_text(), flags=re.MULTILINE)
    listed = dotenv_values(stream=StringIO(uncommented))
    fields = {variable_of(name): name for name in Settings.model_fields}

    assert set(listed) - COMPOSE_ONLY == set(fields)
    given = {variable: value for variable, value in listed.items() if variable in fields}
    defaults = Settings.model_construct()
    for variable, value in given.items():
        default = getattr(defaults, fields[variable])
        assert value == _spelled(default), variable


def _spelled(default: Any) -> str:
    if isinstance(default, bool):
        return str(int(default))
    return f"{default:.0f}" if isinstance(default, float) and default.is_integer() else str(default)


def test_compose_asks_for_no_unknown_variable() -> None:
    """Every ${NAME} is a setting, or one of compose's own."""
    asked = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))

    assert asked <= {variable_of(name) for name in Settings.model_fields} | COMPOSE_ONLY


def test_the_plugin_in_the_image_is_the_packages_own() -> None:
    """The image copies the code instead of installing it, so its entry point is written out once more."""
    image = ConfigParser()
    image.read(next((ROOT / "deploy" / "vllm-plugin").glob("*.dist-info")) / "entry_points.txt")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    group = "vllm.general_plugins"
    assert dict(image[group]) == project["entry-points"][group]


@pytest.mark.parametrize("lock", ["api", "worker-cpu", "worker-gpu"])
def test_locks_name_no_address(lock: str) -> None:
    """Hashes alone, so that any index will do."""
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()

    assert "--hash=sha256:" in text
    assert "://" not in text


def test_the_gpu_lock_is_what_was_measured() -> None:
    """Every version that the measurement on a GPU wrote down, and so transformers' too."""
    measured = json.loads((ROOT / "bench" / "results" / "gpu-1x-h200.json").read_text())["versions"]
    text = (ROOT / "requirements" / "worker-gpu.txt").read_text()
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))

    assert measured["python"].startswith("3.12.")
    named = measured.keys() - {"python"}
    assert named > {"vllm", "torch", "transformers"}
    assert {name: locked[name] for name in named} == {name: measured[name] for name in named}
