"""Carries the text that engines are writing to the readers of its jobs: collected here, written a few times a second.

Engines only append to a list. Text is for readers in a hurry, the answer itself takes another way: nothing here may
hold up or fail a part, and what Redis cannot take while it is away is written later or never.
"""

from __future__ import annotations

import logging
import threading

from phi4.errors import Phi4Error
from phi4.job import Unit
from phi4.log import log
from phi4.store import Piece, Store

_log = logging.getLogger(__name__)
_EVERY_S = 0.1
_AFTER_TROUBLE_S = 1.0
#: Text of one part that waits for a reader; an answer is far shorter. Past it the part's text is told no further.
_MOST_BYTES = 1 << 20


class Telling:
    """The text of one running part, as far as no reader was told of it."""

    def __init__(self, part: Unit, some: threading.Event) -> None:
        self.part = part
        self._some = some
        self._lock = threading.Lock()
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._offset = 0
        self._take = 0
        self._closed = False

    def add(self, text: str) -> None:
        """Take some text from the engine; never waits for anything but another thread's few instructions."""
        piece = text.encode("utf-8", "replace")
        with self._lock:
            if self._closed or not piece:
                return
            self._pieces.append(piece)
            self._waiting += len(piece)
            if self._waiting > _MOST_BYTES:
                self._close()
        if not self._some.is_set():
            self._some.set()

    def restart(self) -> None:
        """Forget what was said: the engine begins the same text anew."""
        with self._lock:
            self._pieces.clear()
            self._waiting = self._offset = 0
            self._take += 1

    def close(self) -> None:
        """Take and tell nothing more."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        self._closed = True
        self._pieces.clear()
        self._waiting = 0

    @property
    def waits(self) -> bool:
        """Whether there is text that no reader was told."""
        return self._waiting > 0

    def piece(self) -> Piece | None:
        """Give all that waits; it goes on waiting until it was `told`."""
        with self._lock:
            if not self._pieces:
                return None
            self._pieces = [b"".join(self._pieces)]
            return Piece(self.part, self._take, self._offset, self._pieces[0])

    def told(self, piece: Piece) -> None:
        """Drop a piece that was written, the first that waited; by now more may wait behind it, or it was forgotten."""
        with self._lock:
            if piece.take == self._take and self._pieces:
                del self._pieces[0]
                self._waiting -= len(piece.text)
                self._offset += len(piece.text)


class Deltas:
    """Writes what engines say from one thread, many parts in one step."""

    def __init__(self, store: Store, *, every: float = _EVERY_S) -> None:
        self._store = store
        self._every = every
        self._tellings: set[Telling] = set()
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._some = threading.Event()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._write_for_ever, name="deltas", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write nothing more."""
        self._end.set()
        self._some.set()
        self._thread.join(timeout=5)

    def begin(self, part: Unit) -> Telling:
        """Begin to collect the text of a part; end it with `rest` or `drop`."""
        telling = Telling(part, self._some)
        with self._lock:
            self._tellings.add(telling)
        return telling

    def rest(self, telling: Telling) -> Piece | None:
        """End a part's text and give what is left of it, to be written in the step that ends the part."""
        with self._writing:  # a piece on its way is either told or still waiting once this is free
            piece = telling.piece()
        self.drop(telling)
        return piece

    def drop(self, telling: Telling) -> None:
        """End a part's text; what is left of it is not told."""
        telling.close()
        with self._lock:
            self._tellings.discard(telling)

    def write(self) -> bool:
        """Write what waits for the jobs that are read; tells whether any text still waits."""
        with self._writing:
            with self._lock:
                tellings = list(self._tellings)
            waiting = [t for t in tellings if t.waits]
            read = self._store.events.are_read({t.part.job.id for t in waiting})
            wanted = [(t, piece) for t in waiting if t.part.job.id in read and (piece := t.piece())]
            answers = self._store.events.say([piece for _, piece in wanted])
            for (telling, piece), answer in zip(wanted, answers, strict=True):
                if answer == "ok":
                    telling.told(piece)
                elif answer == "lost":
                    telling.close()
            return len(answers) < len(waiting) or "unread" in answers

    def _write_for_ever(self) -> None:
        while not self._end.is_set():
            self._some.wait()
            if self._end.wait(self._every):
                return
            self._some.clear()
            try:
                if self.write():
                    self._some.set()
            except Phi4Error as error:
                log(_log, "deltas wait", level=logging.WARNING, error=error.message)
                self._pause()
            except Exception:
                # Without this thread no reader of this worker's jobs would see text again.
                _log.exception("deltas wait")
                self._pause()

    def _pause(self) -> None:
        self._end.wait(_AFTER_TROUBLE_S)
        self._some.set()
