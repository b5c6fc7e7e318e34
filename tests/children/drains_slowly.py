"""On SIGTERM finishes its work with the helper it started (in its own group), then ends both and exits with 0."""

import signal
import subprocess
import sys
from pathlib import Path

journal, go_on = Path(sys.argv[1]), Path(sys.argv[2])
helper = subprocess.Popen(["sleep", "300"])
# After the helper's start, which would inherit it.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
print("working", flush=True)
signal.sigwait({signal.SIGTERM})
print("draining", flush=True)
while not go_on.exists():
    signal.sigtimedwait({signal.SIGTERM}, 0.02)
journal.write_text("helper was spared" if helper.poll() is None else "helper was hit")
helper.kill()
helper.wait()
