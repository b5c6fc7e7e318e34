"""The units this worker holds: renews their leases, and flags those whose job is stopped or whose lease is gone."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from phi4.errors import Phi4Error
from phi4.job import Unit
from phi4.log import log
from phi4.store import Store, WorkerInfo

_log = logging.getLogger(__name__)
_ANNOUNCE_S = 1.0


@dataclass(slots=True)
class Held:
    """A unit in this worker's hands, the flag that asks it to stop, and when that was set (`time.monotonic`)."""

    unit: Unit
    stopped: threading.Event = field(default_factory=threading.Event)
    stopped_at: float = math.inf
    traceparent: str = ""  #: names its span for the steps below

    def stop(self) -> None:
        """Ask it to stop."""
        if not self.stopped.is_set():
            self.stopped_at = time.monotonic()
            self.stopped.set()


class InFlight:
    """Keeps leases alive from one thread.

    `describe` tells what the worker says of itself; `on_hang` hears, again and again, of units that pay no heed to
    their flag `hang_after` seconds after it was set.
    """

    def __init__(
        self,
        store: Store,
        *,
        lease_ms: int,
        every: float,
        hang_after: float,
        describe: Callable[[int], WorkerInfo],
        on_hang: Callable[[], None],
    ) -> None:
        self._store = store
        self._lease_ms = lease_ms
        self._every = every
        self._hang_after = hang_after
        self._describe = describe
        self._on_hang = on_hang
        self._held: dict[str, Held] = {}
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._announced = 0.0
        self._thread = threading.Thread(target=self._beat_for_ever, name="leases", daemon=True)

    def start(self) -> None:
        """Begin to renew leases and to announce this worker."""
        self._thread.start()

    def stop(self) -> None:
        """Stop renewing, and take this worker off the list."""
        self._end.set()
        self._thread.join(timeout=5)
        try:
            self._store.workers.leave(self._describe(0).name)
        except Phi4Error:
            return

    def __len__(self) -> int:
        return len(self._held)

    def units(self) -> list[Unit]:
        """What is held now."""
        return [held.unit for held in self._snapshot()]

    @contextmanager
    def holding(self, unit: Unit) -> Iterator[Held]:
        """Keep a unit's lease alive for the time of the block."""
        held = Held(unit)
        with self._lock:
            self._held[unit.member] = held
        try:
            yield held
        finally:
            with self._lock:
                self._held.pop(unit.member, None)

    def stop_all(self) -> None:
        """Ask everything in flight to stop, so that it goes back to its queue."""
        for held in self._snapshot():
            held.stop()

    def hung(self) -> list[Unit]:
        """The units that were asked to stop and have not, long after."""
        late = time.monotonic() - self._hang_after
        return [held.unit for held in self._snapshot() if held.stopped_at <= late]

    def beat(self) -> None:
        """Renew every lease once, and announce the worker from time to time."""
        held = self._snapshot()
        answers = self._store.work.heartbeat([h.unit.member for h in held], self._lease_ms)
        for one, answer in zip(held, answers, strict=True):
            if answer != "ok":
                one.stop()
        if time.monotonic() - self._announced >= _ANNOUNCE_S:
            self.announce()

    def announce(self) -> None:
        """Say now what this worker is and does."""
        self._store.workers.announce(self._describe(len(self)))
        self._announced = time.monotonic()

    def _snapshot(self) -> list[Held]:
        with self._lock:
            return list(self._held.values())

    def _beat_for_ever(self) -> None:
        while not self._end.wait(self._every):
            if self.hung():
                self._on_hang()
            try:
                self.beat()
            except Phi4Error as error:
                log(_log, "heartbeat failed", level=logging.WARNING, error=error.message)
            except Exception:
                # Without this thread every unit of this worker would lose its lease.
                _log.exception("heartbeat failed")
