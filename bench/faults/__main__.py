"""`python -m bench.faults [NAME…] [--rounds N]` breaks the service; the table is kept in bench/faults.json."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench.faults.listed import FAULTS
from bench.faults.run import Record, run

KEPT = Path(__file__).parent.parent / "faults.json"
_COLUMNS = "| fault | rounds | lost | doubled | stuck | worst recovery |\n|---|---|---|---|---|---|"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named faults, all by default; 1 when anything was lost, doubled or stuck."""
    parser = argparse.ArgumentParser(prog="python -m bench.faults")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(FAULTS))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--short", action="store_true", help="short leases and faults, as in tests; not kept")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.names) - set(FAULTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are: {', '.join(FAULTS)}")
    records = []
    for name in chosen.names or FAULTS:
        print(f"{name}: {FAULTS[name].what}", flush=True)
        record = run(FAULTS[name], chosen.rounds, short=chosen.short, say=lambda line: print(line, flush=True))
        records.append(record)
        if not chosen.short:
            keep(record)
    print(table([asdict(record) for record in records]))
    return int(any(record.lost or record.doubled or record.stuck for record in records))


def keep(record: Record) -> None:
    """Put a record in bench/faults.json, in the place of an earlier one of the same fault."""
    kept = {one["what"]: one for one in json.loads(KEPT.read_text())} if KEPT.exists() else {}
    kept[record.what] = asdict(record)
    order = [fault.what for fault in FAULTS.values()]
    KEPT.write_text(json.dumps([kept[what] for what in order if what in kept], indent=1) + "\n")


def table(records: Sequence[dict[str, object]]) -> str:
    """Show records as a table."""
    rows = [
        f"| {r['what']} | {r['rounds']} | {r['lost']} | {r['doubled']} | {r['stuck']} | {r['worst_recovery_s']:g} s |"
        for r in records
    ]
    return "\n".join([_COLUMNS, *rows])


if __name__ == "__main__":
    sys.exit(main())
