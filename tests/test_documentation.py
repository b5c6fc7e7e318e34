"""What the documents show is what the service does: their commands are run and their outputs compared."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.openapi import document as openapi
from bench.table import DOCUMENTS as TABLES
from bench.table import with_tables
from cli.embedded import free_port
from phi4.settings import Settings, variable_of
from tests.conftest import ROOT, Service, eventually
from tests.console_blocks import Reader, steps
from tests.servers import Web, web

DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
}
WITH_STEPS = sorted(name for name, text in DOCUMENTS.items() if steps(text))


@pytest.fixture
def receiver() -> Iterator[Web]:
    """Somebody who takes webhooks."""
    with web() as receiver:
        yield receiver


@pytest.fixture
def reader(cpu_service: Service, receiver: Web, tmp_path: Path) -> Reader:
    """A reader who has a service running, and `phi4` and `python` at hand."""
    (tmp_path / "bin").mkdir()
    for name, words in (("phi4", "-c 'from cli.main import app; app()'"), ("python", "")):
        command = tmp_path / "bin" / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        command.chmod(0o755)
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "examples").symlink_to(ROOT / "examples")
    url = str(cpu_service.http.base_url)
    env = {k: v for k, v in os.environ.items() if not k.startswith("PHI4_") and k != "REDIS_URL"} | {
        "PYTHONPATH": str(ROOT),
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "PHI4_URL": url,
        "PHI4_DATA_DIR": str(tmp_path / "data"),
        "PORT": str(free_port()),
        "PHI4_METRICS_PORT": "0",
    }
    return Reader(
        folder,
        env,
        {
            "http://127.0.0.1:8000": url,
            "http://127.0.0.1:9000": receiver.url,
            "make demo": "phi4 demo",  # what the Makefile does once the environment is there
        },
    )


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", WITH_STEPS)
def test_each_command_runs_and_prints_what_is_shown(name: str, reader: Reader) -> None:
    """Every ```console and ```python block, in order."""
    for step in steps(DOCUMENTS[name]):
        reader.follow(step)


def test_the_webhook_that_the_readme_shows_is_what_is_sent(reader: Reader, receiver: Web) -> None:
    """Its body is that of the POST above it."""
    readme = DOCUMENTS["README.md"]
    (shown,) = re.findall(r"^```json\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    reader.follow(next(step for step in steps(readme) if "webhook_url" in step.source))

    eventually(lambda: receiver.seen, seconds=60, what="the webhook")

    reader.compare(shown, receiver.seen[0].body.decode(), "the webhook")


def test_the_makefile_runs_the_demo_that_is_tested_here() -> None:
    """`make demo` is `phi4 demo` in an environment."""
    assert "demo: $(VENV)/local\n\t@$(BIN)/phi4 demo\n" in (ROOT / "Makefile").read_text()


def test_the_tables_are_those_that_were_measured() -> None:
    """`python -m bench.table` makes them of bench/results/ and bench/faults.json, and would change nothing."""
    for path in TABLES:
        written = path.read_text()
        assert "<!-- /f" in written
        assert with_tables(written) == written


def test_each_route_is_shown() -> None:
    """docs/api.md has a heading for each route of /openapi.json, and no other."""
    paths = openapi("phi-4-multimodal")["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    shown = re.findall(
        r"`((?:GET|POST|DELETE) /[^` ]*)`", "\n".join(re.findall(r"^##.*$", DOCUMENTS["docs/api.md"], re.M))
    )

    assert set(shown) == routes
    assert len(shown) == len(set(shown))


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_every_file_it_links_is_there(name: str) -> None:
    """Links inside the project lead somewhere."""
    folder = (ROOT / name).parent
    links = re.findall(r"\]\((?!https?://)([^)#]+)(?:#[^)]*)?\)", DOCUMENTS[name])

    assert [link for link in links if not (folder / link).exists()] == []


@pytest.mark.parametrize("name", ["docs/quickstart.md", "docs/security.md"])
def test_it_says_where_a_key_is_put(name: str) -> None:
    """A key is shown once, and of no use to who does not know."""
    assert "PHI4_API_KEY" in DOCUMENTS[name]


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_every_variable_it_names_is_read(name: str) -> None:
    """No setting is documented that the service does not know."""
    own = {"PHI4_URL", "PHI4_API_KEY", "PHI4_PUBLISH", "PHI4_GPU_COUNT"}
    known = {variable_of(field) for field in Settings.model_fields} | own
    named = set(re.findall(r"\b((?:PHI4|REDIS)_[A-Z0-9_]*[A-Z0-9])\b", DOCUMENTS[name]))

    assert named - known == set()
