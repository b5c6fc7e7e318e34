"""`python -m bench.faults [NAME…] [--rounds N]` breaks the service; the table is kept in bench/faults.json."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from bench.faults.kept import keep, table
from bench.faults.listed import FAULTS, RUNNABLE
from bench.faults.run import run, stage


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
    for name in chosen.names or RUNNABLE:
        print(f"{name}: {FAULTS[name].what}", flush=True)
        with stage(FAULTS[name], short=chosen.short) as at:
            record = run(FAULTS[name], chosen.rounds, at, short=chosen.short, say=lambda line: print(line, flush=True))
        records.append(record)
        if not chosen.short:
            keep(record, [fault.what for fault in FAULTS.values()])
    print(table(records))
    return int(not all(record.is_clean for record in records))


if __name__ == "__main__":
    sys.exit(main())
