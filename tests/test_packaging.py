"""pyproject.toml names every package of the project, and every file in them that is not Python."""

from __future__ import annotations

import tomllib
from pathlib import Path

from tests.conftest import ROOT
from tests.test_architecture import ROOMS

SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
FILES = [p for room in ROOMS for p in sorted((ROOT / room).rglob("*")) if p.is_file() and "__pycache__" not in p.parts]


def test_every_package_is_installed() -> None:
    """Each folder with an `__init__.py`."""
    packages = {".".join(p.parent.relative_to(ROOT).parts) for p in FILES if p.name == "__init__.py"}

    assert set(SETUPTOOLS["packages"]) == packages


def test_every_other_file_is_installed_too() -> None:
    """The store's scripts and the console's files, found by the patterns of their packages."""
    named: set[Path] = set()
    for package, patterns in SETUPTOOLS["package-data"].items():
        named |= {path for pattern in patterns for path in ROOT.joinpath(*package.split(".")).glob(pattern)}

    assert named == {p for p in FILES if p.suffix != ".py"}
