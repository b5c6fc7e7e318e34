"""Lists every fault by the name it is called by."""

from __future__ import annotations

from importlib.util import find_spec

from bench.faults import (
    api_faults,
    blob_faults,
    cancel_faults,
    clock_faults,
    disk_faults,
    engine_faults,
    redis_faults,
    soak,
    worker_faults,
)
from bench.faults.run import Fault

FAULTS: dict[str, Fault] = {
    "kill": worker_faults.KILLED,
    "kill-side": worker_faults.SIDE_KILLED,
    "redis-restart": redis_faults.RESTARTED,
    "redis-stop": redis_faults.STOPPED,
    "redis-cut": redis_faults.CUT,
    "redis-slow": redis_faults.SLOW,
    "redis-full": redis_faults.FULL,
    "sigterm": worker_faults.ASKED,
    "sigterm-group": worker_faults.GROUP,
    "ctrl-c": worker_faults.INTERRUPTED,
    "api": api_faults.KILLED,
    "poison": worker_faults.POISON,
    "hang": worker_faults.HANGS,
    "cancel": cancel_faults.CANCELLED,
    "blob-missing": blob_faults.MISSING,
    "blob-tampered": blob_faults.TAMPERED,
    "disk-full": disk_faults.FULL,
    "clock": clock_faults.MOVED,
    "engine": engine_faults.CORE_KILLED,
    "soak": soak.SOAK,
}
#: What can be run here: without vLLM nothing of its can be killed.
RUNNABLE = {name: fault for name, fault in FAULTS.items() if name != "engine" or find_spec("vllm")}
