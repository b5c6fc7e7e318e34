"""Writes the documents' tables from bench/results/ and bench/faults.json: `python -m bench.table`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import simulate
from bench.faults import kept as faults

ROOT = Path(__file__).parent.parent
DOCUMENTS = tuple(ROOT / name for name in ("README.md", "docs/figures.md", "docs/scaling.md"))
#: The figures' mark may name those it wants; without names it is all of them, with machines and dates.
_MARK = re.compile(
    r"(<!-- (figures|faults|simulation)((?: \w+)*): python -m bench\.table -->\n).*?(<!-- /\2 -->)", re.DOTALL
)


def table(names: Sequence[str] = ()) -> str:
    """Make the table: one row a figure, with its cards and conditions, and a line on machine and date for each run."""
    runs = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "bench" / "results").glob("*.json"))}
    figures = [
        figure | {"cards": _cards(run)}
        for run in runs.values()
        for figure in run["figures"]
        if not names or figure["name"] in names
    ]
    if missing := set(names) - {figure["name"] for figure in figures}:
        raise ValueError(f"no figure is called {missing.pop()}")
    rows = [f"| {f['name']} | {f['value']:g} {f['unit']} | {f['cards']}{f['conditions']} |" for f in figures]
    notes = "; ".join(f"{name}: {run['date'][:10]}, {_machine(run)}" for name, run in runs.items())
    return "\n".join(
        ["| figure | value | conditions |", "|---|---|---|", *rows, *(() if names else ("", f"Measured on {notes}."))]
    )


def _cards(run: dict[str, Any]) -> str:
    """The cards a figure was measured on, for the same one may be there for several; '' for none."""
    cards = run["machine"].get("gpus", [])
    return f"{len(cards)} × {cards[0].removeprefix('NVIDIA ')}: " if cards else ""


def _machine(run: dict[str, Any]) -> str:
    machine = run["machine"]
    if machine.get("service") == "elsewhere":
        return "a service on another machine"
    cores = f"{machine['cores']} cores of {machine['processor']}"
    if "gpus" not in machine:
        return f"{cores}, shared"
    versions = [f"{name} {run['versions'][name]}" for name in ("vllm", "torch") if name in run["versions"]]
    gpus = f"{len(machine['gpus'])} × {machine['gpus'][0]} (driver {machine['driver']})"
    return ", ".join([gpus, cores, *versions])


def with_tables(document: str) -> str:
    """Put each table between its marks, where these are."""
    return _MARK.sub(lambda mark: f"{mark[1]}{_made(mark[2], mark[3].split())}\n{mark[4]}", document)


def _made(kind: str, names: Sequence[str]) -> str:
    if kind == "figures":
        return table(names)
    return faults.table(faults.kept()) if kind == "faults" else simulate.table()


if __name__ == "__main__":
    for path in DOCUMENTS:
        path.write_text(with_tables(path.read_text()))
