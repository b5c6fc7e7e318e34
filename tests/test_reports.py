"""Libraries that report what they run to their makers are kept from it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: Each loads ONNX Runtime as the service does, and lets it judge something.
LOADS = {
    "the speech detector": "from worker.media.voice import Detector; Detector().judge(zeros((1, 512), float32))",
    "the cpu engine": "from worker.engines.cpu import CpuEngine; CpuEngine(threads=1).start(print)",
}


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS.keys())
def test_onnx_runtime_makes_itself_no_identity(load: str, tmp_path: Path) -> None:
    """It would keep one beside its unsent reports in the user's cache."""
    env = {k: v for k, v in os.environ.items() if k not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")}
    code = f"from numpy import float32, zeros\n{load}"
    subprocess.run([sys.executable, "-c", code], env=env | {"HOME": str(tmp_path)}, check=True, timeout=120)

    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == []
