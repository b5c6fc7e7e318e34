"""Writes far more than a pipe holds, then a file that says it got through."""

import signal
import sys
from pathlib import Path

for number in range(20_000):
    print(f"line {number} of twenty thousand")
Path(sys.argv[1]).write_text("got through")
signal.pause()
