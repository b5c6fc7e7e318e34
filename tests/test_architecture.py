"""Who may import whom: `cli → api, worker, phi4`, `api → phi4`, `worker → phi4`, and nothing else."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("api", "cli", "phi4", "worker")
ALLOWED = {"phi4": set(), "api": {"phi4"}, "worker": {"phi4"}, "cli": {"api", "worker", "phi4"}}
ENGINE_LIBRARIES = {"vllm", "torch", "transformers", "peft", "xgrammar", "rapidocr", "onnxruntime", "moonshine_voice"}


def imported(path: Path) -> set[str]:
    """The full names a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def top(names: set[str]) -> set[str]:
    """The packages behind full names."""
    return {name.split(".")[0] for name in names}


def sources(room: str) -> list[Path]:
    """Every source file of a room."""
    files = sorted((ROOT / room).rglob("*.py"))
    assert files, f"{room}/ has no sources"
    return files


@pytest.mark.parametrize("room", ROOMS)
def test_arrows_run_one_way(room: str) -> None:
    """A room imports only the rooms below it."""
    wrong = {
        str(path.relative_to(ROOT)): sorted(bad)
        for path in sources(room)
        if (bad := (top(imported(path)) & set(ROOMS)) - ALLOWED[room] - {room})
    }

    assert wrong == {}


def test_only_engines_import_inference_libraries() -> None:
    """No file outside worker/engines/ imports an inference library, but for the detector of speech."""
    wrong = [
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in sources(room)
        if "engines" not in path.parts and path.name != "voice.py" and top(imported(path)) & ENGINE_LIBRARIES
    ]

    assert wrong == []


def test_only_the_store_spells_redis_keys() -> None:
    """Key patterns are spelled in phi4/store/keys.py alone, and Redis is imported in phi4/store/ alone."""
    spelled = [p for room in ROOMS for p in sources(room) if '"phi4:' in p.read_text() or "'phi4:" in p.read_text()]
    importers = {
        p.parent.name for room in ("api", "worker", "phi4") for p in sources(room) if "redis" in top(imported(p))
    }

    assert [p.name for p in spelled] == ["keys.py"]
    assert importers == {"store"}


def test_the_contract_needs_no_server_libraries() -> None:
    """phi4/ imports neither Flask nor an engine, and Celery only where queues are."""
    for path in sources("phi4"):
        names = top(imported(path))
        assert not names & (ENGINE_LIBRARIES | {"flask"}), path
        assert path.name == "queue.py" or not names & {"celery", "kombu"}, path


def test_every_module_says_what_it_owns() -> None:
    """Each module opens with one sentence."""
    silent = [str(p) for room in ROOMS for p in sources(room) if not ast.get_docstring(ast.parse(p.read_text()))]

    assert silent == []
