"""The `phi4` command where it cannot begin, or has nowhere to write: one line, and exit code 1."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

#: A module finder that knows nothing of one package.
_WITHOUT = """
import sys
class Nothing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == {name!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Nothing())
from cli.entry import main
main()
"""


def test_without_its_packages_it_says_what_to_install() -> None:
    """As after `pip install "phi4-service[client]"`."""
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT.format(name="typer")], cwd=ROOT, capture_output=True, text=True, timeout=60
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == 'phi4: typer is not installed; the command wants pip install "phi4-service[local]"\n'


@pytest.mark.parametrize("words", [["--help"], ["plan"], ["plan", "--json"]])
def test_a_full_disk_behind_stdout_is_told(words: list[str]) -> None:
    """No traceback."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cli", *words], cwd=ROOT, stdout=full, stderr=-1, text=True, timeout=60
        )

    assert done.returncode == 1
    assert done.stderr == "phi4: the output cannot be written: No space left on device\n"


def test_a_closed_stdout_is_no_reason_to_fail() -> None:
    """Whoever closed it wants to hear nothing."""
    command = f"{sys.executable} -m cli plan >&-"

    done = subprocess.run(command, shell=True, cwd=ROOT, stderr=-1, text=True, timeout=60)

    assert (done.returncode, done.stderr) == (0, "")
