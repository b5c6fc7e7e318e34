"""A random Phi-4-multimodal of some megabytes, so that tests run the real engines on a CPU.

Weights are random, so its words are noise; what it shows is the way that media, adapters, streams and failures take.
This module needs neither torch nor vLLM; `tests.tiny_phi4.make` and `tests.tiny_phi4.native` do.
"""

from __future__ import annotations

import os
from pathlib import Path

PLUGIN = Path(__file__).parent / "plugin"
ROOT = Path(__file__).parent.parent.parent


def environment(folder: Path) -> dict[str, str]:
    """Environment variables of a process that lets vLLM's CPU build load the checkpoint in `folder`.

    VLLM_PLUGINS stays unset, since it would shut out every plugin that it does not name. So does VLLM_LOGGING_LEVEL,
    since the worker reads the stages of a start off vLLM's log.
    """
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys([str(ROOT), str(PLUGIN), *filter(None, inherited)])),
        "HF_HOME": str(folder / ".huggingface"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        # Bound to cores, the engines of two test runs would share one.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
