"""Our Triton kernels, in Triton's interpreter where there is no GPU; kernel_checks.py says what they must give."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytest.importorskip("triton", reason="Triton is not installed here; `make test` runs this file in .venv-vllm")


@pytest.mark.timeout(300)
def test_the_kernels_give_what_torch_gives() -> None:
    """Sums, norms, gates and convolutions, in both precisions, of widths that fill Triton's blocks and not."""
    checks = [sys.executable, "-m", "pytest", "-q", "-W", "ignore", "tests/kernel_checks.py"]

    done = subprocess.run(checks, cwd=ROOT, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout[-3_000:]
    assert "24 passed" in done.stdout
