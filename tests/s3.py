"""A real server that speaks S3, in a process of its own, with a bucket."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cli.embedded import free_port
from tests.conftest import eventually

BUCKET = "jobs"


@dataclass
class S3:
    """A running server."""

    port: int
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def env(self) -> dict[str, str]:
        """What AWS' own clients read."""
        return {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        """Start it, and make the bucket."""
        argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(argv, stdout=quiet, stderr=quiet, env=os.environ | {"PYTHONWARNINGS": "ignore"})
        eventually(self._has_bucket, seconds=60, what="the S3 server's first answer")

    def _has_bucket(self) -> bool:
        put = urllib.request.Request(f"http://127.0.0.1:{self.port}/{BUCKET}", method="PUT")
        try:
            with urllib.request.urlopen(put, timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextmanager
def s3_server() -> Iterator[S3]:
    """Run a server."""
    server = S3(free_port())
    server.start()
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait(10)
