"""Starts a helper, adds both process ids to a journal, and is gone by SIGKILL; the helper stays."""

import os
import signal
import subprocess
import sys
from pathlib import Path

helper = subprocess.Popen(["sleep", "300"])
with Path(sys.argv[1]).open("a") as journal:
    journal.write(f"{os.getpid()} {helper.pid}\n")
os.kill(os.getpid(), signal.SIGKILL)
