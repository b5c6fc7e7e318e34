"""Keeps what the faults came to in bench/faults.json, and shows it as a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

PATH = Path(__file__).parent.parent / "faults.json"
_HEAD = "| fault | rounds | lost | doubled | stuck | worst recovery |\n|---|---|---|---|---|---|"


@dataclass(frozen=True, slots=True)
class Record:
    """What all rounds of one fault came to; recovery in seconds."""

    what: str
    rounds: int
    lost: int
    doubled: int
    stuck: int
    worst_recovery_s: float

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, doubled or stuck."""
        return not (self.lost or self.doubled or self.stuck)


def kept() -> list[Record]:
    """Read the records."""
    return [Record(**one) for one in json.loads(PATH.read_text())] if PATH.exists() else []


def keep(record: Record, order: Sequence[str]) -> None:
    """Put a record in the place of an earlier one of the same fault; `order` lists all faults there are."""
    records = {one.what: one for one in kept()} | {record.what: record}
    PATH.write_text(json.dumps([asdict(records[what]) for what in order if what in records], indent=1) + "\n")


def table(records: Sequence[Record]) -> str:
    """Show records as a table, one row a fault."""
    rows = [
        f"| {r.what} | {r.rounds} | {r.lost} | {r.doubled} | {r.stuck} | {r.worst_recovery_s:g} s |" for r in records
    ]
    return "\n".join([_HEAD, *rows])
