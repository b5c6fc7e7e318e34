"""Runs a module of the service as `python -m` does, with a wall clock that is wrong by the seconds that a file holds.

    python -m tests.moved_clock FILE module [argument…]

The file is looked at all the time, so the clock can be moved while the module runs. Monotonic time goes on as it is.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading
import time
from pathlib import Path

import time_machine

_LOOK_S = 0.05


class MovedClock:
    """The clock of this process and of those it forks."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._off = 0.0
        self._clock = time_machine.travel(time.time()).start()
        self._follow()
        self._watch()
        os.register_at_fork(after_in_child=self._watch)

    def _watch(self) -> None:
        threading.Thread(target=self._watch_for_ever, name="moved clock", daemon=True).start()

    def _watch_for_ever(self) -> None:
        while True:
            time.sleep(_LOOK_S)
            self._follow()

    def _follow(self) -> None:
        text = self._file.read_text()
        if text and float(text) != self._off:  # it is empty for a moment while it is written
            self._off = float(text)
            self._clock.move_to(time_machine.escape_hatch.time.time() + self._off)


def main() -> None:
    """Move the clock and become the module."""
    MovedClock(Path(sys.argv[1]))
    del sys.argv[:2]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
