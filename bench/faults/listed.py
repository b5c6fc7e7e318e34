"""Lists every fault by the name it is called by."""

from __future__ import annotations

from bench.faults import api_faults, blob_faults, disk_faults, redis_faults, soak, worker_faults
from bench.faults.run import Fault

FAULTS: dict[str, Fault] = {
    "kill": worker_faults.KILLED,
    "redis-restart": redis_faults.RESTARTED,
    "redis-stop": redis_faults.STOPPED,
    "redis-cut": redis_faults.CUT,
    "redis-slow": redis_faults.SLOW,
    "redis-full": redis_faults.FULL,
    "sigterm": worker_faults.ASKED,
    "sigterm-group": worker_faults.GROUP,
    "api": api_faults.KILLED,
    "poison": worker_faults.POISON,
    "hang": worker_faults.HANGS,
    "blob-missing": blob_faults.MISSING,
    "blob-tampered": blob_faults.TAMPERED,
    "disk-full": disk_faults.FULL,
    "soak": soak.SOAK,
}
