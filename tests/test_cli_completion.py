"""Shells complete the words of `phi4`, and asking for help costs little."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from tests.conftest import ROOT

#: What asking for help must not wait for.
HEAVY = {"asyncio", "celery", "flask", "httpx", "numpy", "onnxruntime", "PIL", "pydantic", "redis", "rich", "torch"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell: str) -> None:
    """It names the command and asks it for words."""
    script = CliRunner().invoke(app, ["completion", shell]).stdout

    assert "_PHI4_COMPLETE" in script
    assert f"complete_{shell}" in script


def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    """Asked as bash asks."""
    command = tmp_path / "phi4"
    program = 'from cli.main import app; app(prog_name="phi4")'
    command.write_text(f"#!/bin/sh\nexec '{sys.executable}' -c '{program}' \"$@\"\n")
    command.chmod(0o755)
    asked = """
eval "$(phi4 completion bash)"
COMP_WORDS=(phi4 jobs re); COMP_CWORD=2; _phi4_completion phi4; echo "${COMPREPLY[@]}"
COMP_WORDS=(phi4 ocr --ag); COMP_CWORD=2; _phi4_completion phi4; echo "${COMPREPLY[@]}"
"""
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}

    told = subprocess.run(["bash", "-c", asked], env=env, capture_output=True, text=True, timeout=60)

    assert told.returncode == 0, told.stderr
    assert [line.split() for line in told.stdout.splitlines()] == [["result", "retry", "replay"], ["--again"]]


@pytest.mark.parametrize("words", [[], ["jobs"], ["keys"]])
def test_help_tells_each_command_in_a_whole_sentence(words: list[str]) -> None:
    """On a terminal of 80 columns none is cut off."""
    told = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80"}).stdout

    commands = told.partition("Commands:\n")[2].splitlines()
    assert [line for line in commands if not line.endswith((".", '"'))] == []
    assert [line for line in commands if "..." in line] == []


@pytest.mark.parametrize("words", [["ocr"], ["jobs", "list"]])
def test_help_tells_where_the_service_and_the_key_are_named(words: list[str]) -> None:
    """Beside the option for the one."""
    told = CliRunner().invoke(app, [*words, "--help"]).stdout

    assert "PHI4_URL" in told
    assert "PHI4_API_KEY" in told


def test_help_loads_nothing_heavy() -> None:
    """What a command does is loaded when it is run."""
    loaded = "import sys; from cli.main import app; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True, check=True)

    assert HEAVY & set(modules.stdout.split()) == set()
