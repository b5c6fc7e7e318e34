"""Lets many units run side by side, but a suspect one alone: a reader-writer gate inside one worker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from phi4.errors import Cancelled

#: How often a unit that waits looks whether it is to stop.
_LOOK_S = 0.2


class Gate:
    """Units enter beside others; a suspect waits until all have left, and keeps others out until it is done.

    A unit that is told to stop while it waits raises `Cancelled`.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._closed = False

    @contextmanager
    def beside_others(self, stopped: threading.Event) -> Iterator[None]:
        """Run with others; waits while a suspect runs, or waits to."""
        with self._changed:
            self._wait(lambda: not self._closed, stopped)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self, stopped: threading.Event) -> Iterator[None]:
        """Run with nothing beside it."""
        with self._changed:
            self._wait(lambda: not self._closed, stopped)
            self._closed = True
        try:
            with self._changed:
                self._wait(lambda: self._inside == 0, stopped)
            yield
        finally:
            with self._changed:
                self._closed = False
                self._changed.notify_all()

    def _wait(self, holds: Callable[[], bool], stopped: threading.Event) -> None:
        while not self._changed.wait_for(holds, timeout=_LOOK_S):
            if stopped.is_set():
                raise Cancelled
