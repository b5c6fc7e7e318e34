"""Which NVIDIA cards this process may use and how full they are, asked of nvidia-smi so that no CUDA is loaded."""

from __future__ import annotations

import csv
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

_MIB = 2**20
_FIELDS = ("index", "uuid", "name", "driver_version", "memory.total", "memory.free", "mig.mode.current")
#: nvidia-smi takes seconds when it has to wake the driver.
_PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU; sizes are in bytes."""

    index: int
    uuid: str
    name: str
    driver: str
    total: int
    free: int

    def __str__(self) -> str:
        return f"GPU {self.index} ({self.name})"


def cards() -> tuple[Card, ...]:
    """List the cards that CUDA_VISIBLE_DEVICES leaves to this process, in its order.

    Left out is what cannot be measured so: cards that share the machine's memory, and those cut by MIG. Empty without
    a driver.
    """
    command = ("nvidia-smi", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    rows = csv.reader(done.stdout.splitlines(), skipinitialspace=True)
    return _visible([card for row in rows if (card := _card(row))])


def _card(row: Sequence[str]) -> Card | None:
    if len(row) != len(_FIELDS):
        return None
    index, uuid, name, driver, total, free, mig = (value.strip() for value in row)
    if mig == "Enabled" or not (index.isdecimal() and total.isdecimal() and free.isdecimal()):
        return None
    return Card(int(index), uuid, name, driver, int(total) * _MIB, int(free) * _MIB)


def _visible(found: Sequence[Card]) -> tuple[Card, ...]:
    """Keep what CUDA_VISIBLE_DEVICES names, by number or beginning of an id; as CUDA does, stop at an unknown one."""
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return tuple(found)
    kept: list[Card] = []
    for name in (item.strip() for item in wanted.split(",")):
        named = [
            card for card in found if name == str(card.index) or (name[:4] == "GPU-" and card.uuid.startswith(name))
        ]
        if len(named) != 1:
            break
        kept.append(named[0])
    return tuple(kept)
