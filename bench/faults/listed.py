"""Lists every fault by the name it is called by."""

from __future__ import annotations

from bench.faults import worker_faults
from bench.faults.run import Fault

FAULTS: dict[str, Fault] = {
    "kill": worker_faults.KILLED,
}
