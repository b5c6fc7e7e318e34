"""Ignores SIGTERM, and so does the helper it starts; writes both process ids to a journal."""

import os
import signal
import subprocess
import sys
from pathlib import Path

signal.signal(signal.SIGTERM, signal.SIG_IGN)
helper = subprocess.Popen(["sleep", "300"])
Path(sys.argv[1]).write_text(f"{os.getpid()} {helper.pid}\n")
helper.wait()
