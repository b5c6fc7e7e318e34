"""No fault but time: mixed load for hours, after which nothing may have grown or been left behind."""

from __future__ import annotations

import time

import psutil
import redis

from bench.faults.processes import Processes
from bench.faults.run import Fault, Scene
from phi4.store import Store

#: Twenty rounds are two hours.
_ROUND_S = 360.0
#: Longer than a round and its verdict, so that jobs expire from the third round on.
_KEPT_S = 900
#: Blobs are erased after the job, not with it.
_ERASED_WITHIN_S = 15.0
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
        print("  MB: " + ", ".join(f"{name} {size:.0f}" for name, size in sizes[-1].items()), flush=True)
        grown = [
            f"{name} grew from {before:.0f} to {sizes[-1][name]:.0f} MB"
            for name, before in (sizes[1] if len(sizes) > 2 else {}).items()
            if sizes[-1][name] - before > _MOST_GROWTH_MB
        ]
        return [*grown, *keys_for_ever(scene.service), *blobs_of_nobody(scene.service)]


def keys_for_ever(service: Processes) -> list[str]:
    """The service's keys that no time to live will take away."""
    with redis.Redis.from_url(service.valkey.url, decode_responses=True) as server:
        keys = [key for key in server.scan_iter(count=1_000) if not key.startswith(_NOT_OURS)]
        asked = server.pipeline(transaction=False)
        for key in keys:
            asked.ttl(key)
        return [f"{key} lives for ever" for key, ttl in zip(keys, asked.execute(), strict=True) if ttl == -1]


def blobs_of_nobody(service: Processes) -> list[str]:
    """Folders of blobs whose job nobody knows, or which is gone for longer than erasing takes."""
    ends = time.monotonic() + _ERASED_WITHIN_S
    store = Store.at(service.valkey.url)
    with store.client:
        ownerless = [path for path in (service.folder / "blobs").glob("*/*") if _is_gone(store, path.name)]
    while (ownerless := [path for path in ownerless if path.exists()]) and time.monotonic() < ends:
        time.sleep(0.5)
    return [f"{path.name} has blobs and no job" for path in ownerless]


def _is_gone(store: Store, job_id: str) -> bool:
    job = store.jobs.find(job_id)
    return job is None or job.status == "expired"


def _megabytes(service: Processes, name: str) -> float:
    """Memory of a process and its children, pages that they share counted once (PSS)."""
    root = psutil.Process(service.running[name].pid)
    return float(sum(p.memory_full_info().pss for p in (root, *root.children(recursive=True)))) / 1e6


SOAK = Fault(
    "six minutes of mixed load: memory flat, no key without a time to live, no blob without an owner",
    _load,
    fields={"expires_in": str(_KEPT_S)},
    after=_Left(),
)
