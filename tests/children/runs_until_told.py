"""Writes its name and process id to a journal when it starts, and its name when SIGTERM ends it."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

journal, name = Path(sys.argv[1]), sys.argv[2]


def note(line: str) -> None:
    with journal.open("a") as file:
        file.write(f"{line}\n")


def end(number: int, frame: FrameType | None) -> None:
    note(f"{name} stopped")
    sys.exit(0)


signal.signal(signal.SIGTERM, end)
note(f"{name} started {os.getpid()}")
while True:
    signal.pause()
