"""The example for CVlization's `cvl`: its scripts do what example.yaml says, with Docker and without."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from cli.embedded import free_port
from tests.conftest import ROOT, eventually, png

EXAMPLE = ROOT / "examples/perception/vision_language/phi_4_multimodal_instruct"
RECIPE: dict[str, Any] = yaml.safe_load((EXAMPLE / "example.yaml").read_text())


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """A machine without Docker and GPU, where `phi4` is at hand."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "dirname", "env", "id", "make", "mkdir"):
        (programs / name).symlink_to(f"/usr/bin/{name}" if Path(f"/usr/bin/{name}").exists() else f"/bin/{name}")
    stub(programs / "phi4", f'exec "{sys.executable}" -m cli "$@"')
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PHI4_", "CVL_"))}
    own = {
        "PATH": str(programs),
        "PYTHONPATH": str(ROOT),
        "CVL_WORK_DIR": str(tmp_path),
        "HF_HOME": str(tmp_path / "hf"),
    }
    return kept | own


def stub(path: Path, does: str) -> None:
    """Make a small program."""
    path.write_text(f"#!/bin/sh\n{does}\n")
    path.chmod(0o755)


def run(script: str, *words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run one of the scripts."""
    return subprocess.run([EXAMPLE / script, *words], env=env, capture_output=True, text=True, timeout=100)


def test_the_recipe_has_what_cvl_reads() -> None:
    """A name, what it needs, and a script for each preset, which may be run."""
    assert RECIPE["name"] == "phi-4-multimodal-instruct"
    assert RECIPE["capability"] == EXAMPLE.parent.relative_to(ROOT / "examples").as_posix()
    assert set(RECIPE["resources"]) == {"gpu", "vram_gb", "disk_gb"}
    assert set(RECIPE["presets"]) == {"build", "predict", "serve"}
    for preset in RECIPE["presets"].values():
        assert os.access(EXAMPLE / preset["script"], os.X_OK)
        assert preset["description"]


def test_predict_answers_on_this_machine(env: dict[str, str], tmp_path: Path) -> None:
    """Without Docker it says so; relative paths lead where cvl was called."""
    (tmp_path / "sign.jpg").write_bytes((ROOT / "examples/inputs/sign.jpg").read_bytes())

    done = run("predict.sh", "--image", "sign.jpg", "--prompt", "What are the opening hours on Saturday?", env=env)

    assert (done.returncode, done.stdout) == (0, "10:00-16:00\n"), done.stderr
    assert "No Docker engine answers" in done.stderr


def test_the_original_s_flags_are_taken(env: dict[str, str], tmp_path: Path) -> None:
    """All of them, and the answer is written where they say."""
    words = "--prompt", "What are the opening hours on Saturday?", "--device", "cpu", "--format", "json"
    where = "--image", str(ROOT / "examples/inputs/sign.jpg"), "--output", "outputs/result.json"

    done = run("predict.sh", *words, *where, "--model-id", "microsoft/Phi-4-multimodal-instruct", env=env)

    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert json.loads((tmp_path / "outputs/result.json").read_text())["text"] == "10:00-16:00"


def test_serve_answers_openai_s_clients_on_this_machine(env: dict[str, str], tmp_path: Path) -> None:
    """On HOST, PORT and under PHI4_SERVED_NAME, until Ctrl-C."""
    own = {"HOST": "localhost", "PORT": str(free_port()), "PHI4_SERVED_NAME": "phi"}
    own |= {"PHI4_METRICS_PORT": "0", "PHI4_ENGINE": "cpu"}
    with (tmp_path / "log").open("w") as log:
        serving = subprocess.Popen(
            [EXAMPLE / "serve.sh"], env=env | own | {"PHI4_DATA_DIR": str(tmp_path / "data")}, stdout=log, stderr=log
        )
        try:
            url = f"http://localhost:{own['PORT']}"

            def models() -> list[str]:
                try:
                    return [model["id"] for model in httpx.get(f"{url}/v1/models").json()["data"]]
                except httpx.TransportError:
                    return []

            assert eventually(models, seconds=60) == ["phi"]
            eventually(lambda: httpx.get(f"{url}/readyz").status_code == 200, seconds=60)
        finally:
            serving.send_signal(signal.SIGINT)
            assert serving.wait(60) == 0


@pytest.mark.parametrize(
    ("script", "words", "asked"),
    [
        ("predict.sh", ["--image", "a.png", "--prompt", "What is it?"], ["-m", "cli", "predict"]),
        ("serve.sh", [], ["-m", "cli", "serve"]),
    ],
)
def test_with_docker_the_image_runs(
    env: dict[str, str], tmp_path: Path, script: str, words: list[str], asked: list[str]
) -> None:
    """On all GPUs, with the settings of the original, and the caller's folder and port."""
    log = tmp_path / "docker.log"
    stub(tmp_path / "bin" / "docker", f'for word in "$@"; do echo "$word"; done >"{log}"')
    (tmp_path / "a.png").write_bytes(png())
    settings = {"PORT": "8123", "PHI4_MAX_MODEL_LEN": "32768", "TENSOR_PARALLEL_SIZE": "2", "HF_TOKEN": "hf_x"}

    done = run(script, *words, env=env | settings | {"CVL_IMAGE": "mine", "CVL_CONTAINER_NAME": "here"})

    told = log.read_text().splitlines()
    assert done.returncode == 0, done.stderr
    assert told[:4] == ["run", "--rm", "--gpus", "all"]
    assert told[told.index("mine") + 1 :] == [*asked, *words]
    assert told[told.index("--name") + 1] == "here"
    passed = {told[n + 1] for n, word in enumerate(told) if word == "--env"}
    assert {"PORT", "PHI4_MAX_MODEL_LEN", "PHI4_SERVED_NAME", "TENSOR_PARALLEL_SIZE", "HF_TOKEN"} <= passed
    place = f"{tmp_path}:/mnt/cvl/workspace" if words else "127.0.0.1:8123:8123"
    assert place in told
    assert f"{tmp_path / 'hf'}:/models" in told
    assert "hf_x" not in told


def test_build_makes_the_image_or_an_environment(env: dict[str, str], tmp_path: Path) -> None:
    """`build.sh worker` with Docker, the local environment without."""
    log = tmp_path / "log"
    (tmp_path / "bin" / "make").unlink()
    stub(tmp_path / "bin" / "make", f'echo "make $@" >>"{log}"')

    assert run("build.sh", env=env).returncode == 0
    stub(tmp_path / "bin" / "docker", f'echo "docker $@" >>"{log}"')
    assert run("build.sh", env=env).returncode == 0

    told = log.read_text()
    assert f"make -C {ROOT} .venv/local" in told
    assert "--target worker --tag phi4-worker:latest" in told
