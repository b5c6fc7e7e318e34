"""An nvidia-smi for machines without a driver."""

from __future__ import annotations

from pathlib import Path

H200 = "0, GPU-0aa1, NVIDIA H200, 580.65.06, 143771, 143158, Disabled"


def write_smi(folder: Path, *lines: str, code: int = 0) -> str:
    """Write a program that prints these lines and exits so; gives the PATH under which it is found."""
    program = folder / "nvidia-smi"
    program.write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(lines) + f"\nEND\nexit {code}\n")
    program.chmod(0o755)
    return f"{folder}:/usr/bin:/bin"
