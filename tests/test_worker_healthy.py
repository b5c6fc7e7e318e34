"""`python -m worker healthy`: what a container's health check asks."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT, Service


def healthy(env: dict[str, str]) -> tuple[int, str]:
    """Ask, as the container would: exit code, and what was said."""
    done = subprocess.run(
        [sys.executable, "-m", "worker", "healthy"], env=env, cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    return done.returncode, done.stderr.strip()


def test_a_serving_worker_is_healthy(service: Service) -> None:
    """Nothing is said, and the code is 0."""
    assert healthy(service.env) == (0, "")


def test_without_a_worker_the_reason_is_said(service: Service) -> None:
    """A database in which no worker has announced itself."""
    elsewhere = service.redis_url.removesuffix("/0") + "/14"

    assert healthy(service.env | {"REDIS_URL": elsewhere}) == (1, "no worker of this host has announced itself")


def test_without_redis_the_reason_is_said(service: Service) -> None:
    """A worker that has lost Redis does no work."""
    code, said = healthy(service.env | {"REDIS_URL": "redis://127.0.0.1:1/0"})

    assert code == 1
    assert "does not answer" in said


def test_wrong_words_are_answered_with_the_right_ones() -> None:
    """There are three."""
    done = subprocess.run([sys.executable, "-m", "worker", "heal"], cwd=ROOT, capture_output=True, text=True)

    assert (done.returncode, done.stderr.strip()) == (1, "usage: python -m worker infer|side|healthy")
