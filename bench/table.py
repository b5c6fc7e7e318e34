"""Writes the README's tables from bench/results/ and bench/faults.json: `python -m bench.table`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.faults import kept as faults

ROOT = Path(__file__).parent.parent
_MARKS = ("<!-- {}: python -m bench.table -->", "<!-- /{} -->")


def table() -> str:
    """Make the table: one row a figure, with its conditions, and a line on machine and date for each run."""
    rows = ["| figure | value | conditions |", "|---|---|---|"]
    notes = []
    for path in sorted((ROOT / "bench" / "results").glob("*.json")):
        run = json.loads(path.read_text())
        rows += [f"| {f['name']} | {f['value']:g} {f['unit']} | {f['conditions']} |" for f in run["figures"]]
        notes.append(f"{path.stem}: {run['date'][:10]}, {_machine(run)}")
    return "\n".join([*rows, "", f"Measured on {'; '.join(notes)}."])


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


def with_tables(readme: str) -> str:
    """Put each table between its marks, where these are."""
    for name, made in (("figures", table()), ("faults", faults.table(faults.kept()))):
        begin, end = (mark.format(name) for mark in _MARKS)
        if begin in readme:
            before, rest = readme.split(begin)
            readme = f"{before}{begin}\n{made}\n{end}{rest.split(end)[1]}"
    return readme


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(with_tables(readme.read_text()))
