"""A full disk under the blobs: a small file system of its own where one may be mounted, else a limit on every file."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from bench.faults.processes import Processes, processes
from bench.faults.run import Fault, Scene

_DISK_MB = 32


@contextmanager
def _on_a_small_disk(**env: str) -> Iterator[Processes]:
    """The service with its blobs on a disk of 32 MB; without the right to mount one, on the common disk."""
    with tempfile.TemporaryDirectory(prefix="phi4-disk-") as folder:
        mount = ("mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m", "tmpfs", folder)
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
        try:
            with processes(None, **env, PHI4_BLOBS=f"file://{folder}") as service:
                yield service
        finally:
            if mounted:
                subprocess.run(("umount", "-l", folder), check=True)


def _fill(scene: Scene) -> None:
    disk = Path(scene.service.env["PHI4_BLOBS"].removeprefix("file://"))
    filling = _filled(disk / "filler") if disk.is_mount() else _no_file_may_grow(scene.service)
    with filling:
        scene.wait(2, 6)


@contextmanager
def _filled(filler: Path) -> Iterator[None]:
    """Leave no byte on a file system."""
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 12))
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def _no_file_may_grow(service: Processes) -> Iterator[None]:
    """Let no process of the service write a byte to any file, its log included."""
    roots = [psutil.Process(service.running[name].pid) for name in ("api", "side", "infer")]
    limited = [process for root in roots for process in (root, *root.children())]
    before = [process.rlimit(psutil.RLIMIT_FSIZE) for process in limited]
    for process, (_, hard) in zip(limited, before, strict=True):
        process.rlimit(psutil.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        for process, limit in zip(limited, before, strict=True):
            process.rlimit(psutil.RLIMIT_FSIZE, limit)


FULL = Fault(
    "the disk under the blobs full for 2 to 6 s: refused, or failed as storage_full",
    _fill,
    service=_on_a_small_disk,
    excused=("storage_full",),
)
