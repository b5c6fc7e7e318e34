"""No fault but time: mixed load for hours, after which nothing may have grown or been left behind."""

from __future__ import annotations

import psutil
import redis

from bench.faults.processes import Processes
from bench.faults.run import Fault, Scene

#: Twenty rounds are two hours.
_ROUND_S = 360.0
#: What a process may grow between the second round and any later one: allocators do not give everything back.
_MOST_GROWTH_MB = 40.0
#: Celery's own: its queues, and where they are bound. There is one of each, whatever happens.
_NOT_OURS = ("_kombu.", "infer.", "prepare", "webhooks", "celery")


def _load(scene: Scene) -> None:
    scene.wait(_ROUND_S, _ROUND_S)


class _Left:
    """Looks for what was left behind; keeps the memory of earlier rounds to compare with."""

    def __init__(self) -> None:
        self._sizes: dict[int, list[dict[str, float]]] = {}

    def __call__(self, scene: Scene) -> list[str]:
        """Say what is there that should not be."""
        sizes = self._sizes.setdefault(id(scene.service), [])
        sizes.append({name: _megabytes(scene.service, name) for name in ("api", "side", "infer")})
        grown = [
            f"{name} grew from {before:.0f} to {sizes[-1][name]:.0f} MB"
            for name, before in (sizes[1] if len(sizes) > 2 else {}).items()
            if sizes[-1][name] - before > _MOST_GROWTH_MB
        ]
        return [*grown, *keys_for_ever(scene.service), *blobs_of_nobody(scene)]


def keys_for_ever(service: Processes) -> list[str]:
    """The service's keys that no time to live will take away."""
    with redis.Redis.from_url(service.valkey.url, decode_responses=True) as server:
        keys = [key for key in server.scan_iter(count=1_000) if not key.startswith(_NOT_OURS)]
        return [f"{key} lives for ever" for key in keys if server.ttl(key) == -1]


def blobs_of_nobody(scene: Scene) -> list[str]:
    """Folders of blobs whose job nobody knows."""
    folders = [path.name for path in (scene.service.folder / "blobs").glob("*/*")]
    return [f"{name} has blobs and no job" for name in folders if scene.http.get(f"/v1/jobs/{name}").status_code == 404]


def _megabytes(service: Processes, name: str) -> float:
    """Memory of a process and its children, pages that they share counted once (PSS)."""
    root = psutil.Process(service.running[name].pid)
    return float(sum(p.memory_full_info().pss for p in (root, *root.children(recursive=True)))) / 1e6


SOAK = Fault(
    "six minutes of mixed load: memory flat, no key without a time to live, no blob without an owner",
    _load,
    after=_Left(),
)
