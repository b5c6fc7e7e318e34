"""Bounds how long, and how many, slow clients hold the server's threads, whether they send or receive.

Of each request, head and body, and of each answer, only the time is counted in which a thread waits for its client.
"""

from __future__ import annotations

import errno
import select
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

#: A wait in all so short needs no place: most clients have sent what they send before their turn comes.
_MOMENT_S = 0.5
#: What the system keeps of an answer that is not read; by itself it would keep megabytes for each client.
_SEND_BUFFER = 256 << 10


class TooSlow(TimeoutError):
    """A client is too slow, or one slow client too many; the number is one of those that gunicorn does not log."""

    def __init__(self) -> None:
        super().__init__(errno.ECONNRESET, "the client is too slow")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What slow clients may cost: `patience` in seconds, one more for each `rate` bytes; a place for each long wait."""

    patience: float
    rate: int
    places: threading.Semaphore


class _Way:
    """One way of a connection, for the time of one request: how long it was waited for, and what it brought."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._waited = 0.0
        self.moved = 0

    def wait(self, fd: int, event: int, limit: float | None) -> None:
        """Wait until the socket is ready. Raises `TooSlow`."""
        bounds, began = self._bounds, time.monotonic()
        left = bounds.patience + self.moved / bounds.rate - self._waited
        left = left if limit is None else min(left, limit)
        moment = min(max(0.0, _MOMENT_S - self._waited), left)
        try:
            if not _is_ready(fd, event, moment):
                self._wait_in_place(fd, event, left - moment)
        finally:
            self._waited += time.monotonic() - began

    def _wait_in_place(self, fd: int, event: int, seconds: float) -> None:
        if seconds <= 0 or not self._bounds.places.acquire(blocking=False):
            raise TooSlow
        try:
            if not _is_ready(fd, event, seconds):
                raise TooSlow
        finally:
            self._bounds.places.release()


def _is_ready(fd: int, event: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(max(0.0, seconds) * 1000))


class ClientSocket(socket.socket):
    """A client's connection whose blocking calls end with `TooSlow` when the client exceeds its bounds.

    The socket itself never blocks; `settimeout` and `setblocking` only set the limit of the calls to come.
    """

    _bounds: Bounds
    _limit: float | None

    @classmethod
    def over(cls, sock: socket.socket, bounds: Bounds) -> ClientSocket:
        """Take over a connection."""
        taken = cls(fileno=sock.detach())
        socket.socket.setblocking(taken, False)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        taken._bounds, taken._limit = bounds, None
        taken.begin_request()
        return taken

    def begin_request(self) -> None:
        """Start over with a new request and its answer."""
        self._incoming, self._outgoing = _Way(self._bounds), _Way(self._bounds)

    def setblocking(self, flag: bool) -> None:
        """Let calls wait, or not."""
        self._limit = None if flag else 0.0

    def settimeout(self, value: float | None) -> None:
        """Let calls wait for so many seconds at most."""
        self._limit = value

    def gettimeout(self) -> float | None:
        """Say how long calls wait at most."""
        return self._limit

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """Read what there is, waiting for it as far as the client's bounds go."""
        while True:
            try:
                data = super().recv(bufsize, flags)
            except BlockingIOError:
                if flags & socket.MSG_DONTWAIT:
                    raise
                self._incoming.wait(self.fileno(), select.POLLIN, self._limit)
            else:
                self._incoming.moved += len(data)
                return data

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        """Write everything, waiting for the client as far as its bounds go."""
        left = memoryview(data).cast("B")
        while left:
            try:
                sent = self.send(left, flags)
            except BlockingIOError:
                self._outgoing.wait(self.fileno(), select.POLLOUT, self._limit)
            else:
                self._outgoing.moved += sent
                left = left[sent:]
