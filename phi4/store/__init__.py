"""The job store on Redis or Valkey: every state change is one atomic, conditional script that says whether it won."""

from __future__ import annotations

import redis

from phi4.store.access import LOCAL, Access, ApiKey
from phi4.store.batches import Batch, Batches
from phi4.store.changes import Changes, Event
from phi4.store.connection import UnsuitableRedis, check_server, connect
from phi4.store.events import Events, Piece
from phi4.store.files import Files, StoredFile
from phi4.store.hooks import Hook, Hooks
from phi4.store.jobs import Jobs, Submission
from phi4.store.scripts import Scripts
from phi4.store.work import Reaped, Work
from phi4.store.workers import Backlog, WorkerInfo, Workers

__all__ = [
    "LOCAL",
    "Access",
    "ApiKey",
    "Backlog",
    "Batch",
    "Batches",
    "Changes",
    "Event",
    "Events",
    "Files",
    "Hook",
    "Hooks",
    "Jobs",
    "Piece",
    "Reaped",
    "Store",
    "StoredFile",
    "Submission",
    "UnsuitableRedis",
    "Work",
    "WorkerInfo",
    "Workers",
    "check_server",
    "connect",
]


class Store:
    """All rooms of the store over one connection pool."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        scripts = Scripts(client)
        self.jobs = Jobs(client, scripts)
        self.work = Work(client, scripts)
        self.hooks = Hooks(client, scripts)
        self.workers = Workers(client)
        self.changes = Changes(client, self.jobs)
        self.events = Events(client, scripts, self.changes)
        self.access = Access(client)
        self.files = Files(client)
        self.batches = Batches(client)

    def now_ms(self) -> int:
        """Tell the time, Unix milliseconds of Redis' clock: machines may disagree with each other."""
        seconds, microseconds = self.client.time()
        return seconds * 1000 + microseconds // 1000

    def memory(self) -> tuple[int, int]:
        """Tell how many bytes Redis uses, and how many it may: its `maxmemory`, or else the machine's memory."""
        info = self.client.info("memory")
        return int(info["used_memory"]), int(info.get("maxmemory") or info.get("total_system_memory") or 0)

    @classmethod
    def at(cls, url: str, *, allow_evicting: bool = False) -> Store:
        """Connect, and refuse a server that cannot keep jobs. Raises `StoreUnavailable`, `UnsuitableRedis`."""
        client = connect(url)
        check_server(client, allow_evicting=allow_evicting)
        return cls(client)
