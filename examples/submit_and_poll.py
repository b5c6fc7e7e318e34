"""Sends files as jobs that run side by side, and writes what each says: submit_and_poll.py FILE…"""

from __future__ import annotations

import os
import sys

from phi4.client import Client

with Client(os.environ.get("PHI4_URL", "http://127.0.0.1:8000"), os.environ.get("PHI4_API_KEY", "")) as client:
    jobs = {path: client.submit("ocr", path) for path in sys.argv[1:]}
    for path, job in jobs.items():
        ended = client.wait(job.id)
        print(f"==> {path}: {ended.status} <==")
        print(ended.result["text"] if ended.result else ended.error)
