"""The oldest vLLM that the service runs on has every name that it uses; so has the installed one, if one is."""

from __future__ import annotations

import ast
import importlib.util
import json
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.vllm_source import TAKEN, Names, found, names

OLDEST = ROOT / "tests" / "vllm_0.26.0.json"


def lacking(there: Names) -> list[str]:
    """What is taken for granted and not there."""
    return [
        f"{module}: {name} {wanted - set(there.get(module, {}).get(name, []))}"
        for module, things in TAKEN.items()
        for name, wanted in things.items()
        if name not in there.get(module, {}) or wanted - set(there[module][name])
    ]


def test_vllm_0_26_has_what_is_used() -> None:
    """Read off the source in its wheel, since it cannot be installed beside the CPU build of a newer one."""
    assert lacking(json.loads(OLDEST.read_text())) == []


def test_the_installed_vllm_has_what_is_used() -> None:
    """By the same reading, which so is proved on one that also runs."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        pytest.skip("vLLM is not installed here; `make test` runs this file in .venv-vllm too")

    assert lacking(found(Path(spec.origin).parent.parent)) == []


def test_every_import_of_vllm_is_listed() -> None:
    """Else a version without it would be noticed on a GPU first."""
    imported = {
        (node.module, alias.name)
        for file in (ROOT / "worker" / "engines").glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "vllm"
        for alias in node.names
    }

    listed = {
        (place, name)
        for module, things in TAKEN.items()
        for place in module.split("|")
        for name in (*(name.partition(".")[0] for name in things), *things.get("", set()))
    }
    assert imported - listed == set()
    assert len(imported) > 8


@pytest.mark.parametrize(
    ("source", "name", "has"),
    [
        ("class A:\n  x: int = 1\n  async def f(self, a, *, b): ...", "A.f", {"async def", "self", "a", "b"}),
        ("class A:\n  x: int = 1\n  def __init__(self): self.y = 2", "A", {"class", "A", "x", "__init__", "y"}),
        ("try:\n  from a import b\nexcept ImportError:\n  b = None", "", {"class", "b"}),
        ("if True:\n  def f(x): ...", "f", {"def", "x"}),
        ("class A: ...", "B", set()),
        ("class A: ...", "A.f", set()),
    ],
)
def test_names_are_read_off_source(tmp_path: Path, source: str, name: str, has: set[str]) -> None:
    """Parameters of functions, fields and attributes of classes, imports of modules."""
    (tmp_path / "vllm.py").write_text(source)

    assert names(tmp_path, "vllm", name) == has
