"""Works on batches, in a thread of one API process at a time: checks lines, makes jobs of them, writes the files.

Everything that it must know after a restart is in the store: a line's job is made under an idempotency key, so that
another process goes on where this one was killed, and no line is done twice.
"""

from __future__ import annotations

import errno
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from api import cancelling
from api.auth import Caller
from api.openai import batch_lines
from api.openai.batch_output import BatchOutput
from api.services import Services
from phi4.blobs import NO_ROOM
from phi4.errors import (
    BlobMissing,
    Cancelled,
    LeaseLost,
    NoWorkerForType,
    Phi4Error,
    QueueFull,
    ServiceError,
    StoreUnavailable,
)
from phi4.job import new_id
from phi4.log import log
from phi4.store import Batch
from phi4.store.access import ApiKey
from phi4.store.batches import COMPLETED, FAILED, REFUSED, RUNS

_log = logging.getLogger(__name__)
_MOST_LINES = 50_000
_MOST_ERRORS = 100
#: Lines of one batch that are jobs at a time: enough for the widest engine, far from the bound of the queue.
_MOST_RUNNING = 128
#: Failures of the service itself on one batch.
_MOST_FAILURES = 3
_LOCK_S, _HOLD_EVERY_S = 15.0, 2.0
_IDLE_S, _BUSY_S = 0.3, 0.05
#: A line that has to wait is tried again after this long: its inputs are stored for each try.
_REST_S = 1.0
#: Reasons for a line to wait for its turn, which say nothing about the line.
_LATER = (QueueFull, NoWorkerForType, ServiceError, StoreUnavailable)
#: What a process or its machine runs out of, which says nothing about a batch or a line.
_RAN_OUT = (errno.EMFILE, errno.ENFILE, *NO_ROOM)


@dataclass
class _Open:
    """What is kept in memory of a batch under way: it is found again in the store when this process ends."""

    lines: dict[int, str]
    text: Iterator[tuple[int, bytes]]
    waiting: tuple[int, bytes] | None = None
    running: dict[int, str] = field(default_factory=dict)
    rests_until: float = 0.0
    cancelled: bool = False


class BatchRunner:
    """The thread that works on batches while this process holds their lock."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._store = services.store
        self._name = new_id("runner")
        self._output = BatchOutput(services)
        self._open: dict[str, _Open] = {}
        self._failures: Counter[str] = Counter()
        self._held_at = 0.0
        self._thread = threading.Thread(target=self._run, name="batches", daemon=True)

    def start(self) -> None:
        """Begin to work on batches."""
        self._thread.start()

    def _run(self) -> None:
        pause = _IDLE_S
        while not self._services.closing.wait(pause):
            try:
                pause = _BUSY_S if self._round() else _IDLE_S
            except Phi4Error as error:
                pause = _IDLE_S
                self._open.clear()
                log(_log, "batches wait", level=logging.WARNING, error=error.message)
            except Exception:
                pause = _IDLE_S
                self._open.clear()
                _log.exception("batches failed")

    def _round(self) -> bool:
        """Take every open batch a step further; False when nothing moved, or another process has them."""
        if not self._store.work.hold_lock("batches", self._name, _LOCK_S):
            self._open.clear()
            return False
        self._held_at = time.monotonic()
        moved = False
        for batch_id in self._store.batches.open():
            moved |= self._advance(batch_id)
            self._hold()
        return moved

    def _advance(self, batch_id: str) -> bool:
        try:
            batch = self._store.batches.find(batch_id)
            return batch is not None and self._step(batch)
        except Phi4Error:
            raise
        except Exception as error:
            if _ran_out(error):
                log(_log, "a batch waits", level=logging.WARNING, batch=batch_id, error=str(error))
                self._open.pop(batch_id, None)
                return False
            # The others go on; and it does not go on for ever.
            _log.exception("a batch failed", extra={"phi4_fields": {"batch": batch_id}})
            self._give_up(batch_id)
            return True

    def _give_up(self, batch_id: str) -> None:
        """Begin a batch anew after a failure that nobody foresaw, or end it when that has happened too often."""
        state = self._open.pop(batch_id, None)
        self._failures[batch_id] += 1
        batch = self._store.batches.find(batch_id)
        if batch is None or batch.is_over or self._failures[batch_id] < _MOST_FAILURES:
            return
        if state is not None:
            self._cancel(state)
        self._fail(batch, [batch_lines.fault("internal_error", "The service failed on this batch.")])

    def _hold(self) -> None:
        """Keep the lock during long work. Raises `LeaseLost` when another process has it."""
        if time.monotonic() - self._held_at > _HOLD_EVERY_S:
            if not self._store.work.hold_lock("batches", self._name, _LOCK_S):
                raise LeaseLost
            self._held_at = time.monotonic()

    def _step(self, batch: Batch) -> bool:
        """Take a batch a step further; False when nothing moved."""
        try:
            if batch.status == "validating":
                batch = self._validate(batch)
            if batch.status == "in_progress":
                return self._work(batch)
            if batch.status == "finalizing":
                self._finalize(batch, self._lines_of(batch))
            elif batch.is_over:
                self._close(batch)
        except BlobMissing:
            self._fail(batch, [batch_lines.fault("file_gone", "The input file is gone.")])
        return True

    # -- validating

    def _validate(self, batch: Batch) -> Batch:
        """Look at every line once: a batch with a line that is no request of it is not begun."""
        wrong: list[dict[str, Any]] = []
        seen: set[str] = set()
        total = 0
        for number, text in self._texts(batch):
            total = number
            try:
                line = batch_lines.read(text, batch.endpoint)
            except Phi4Error as error:
                wrong.append(batch_lines.wrong(error, number))
            else:
                if line.custom_id in seen:
                    told = f"The custom_id {line.custom_id[:100]!r} is taken by an earlier line."
                    wrong.append(batch_lines.fault("duplicate_custom_id", told, line=number, param="custom_id"))
                seen.add(line.custom_id)
            if len(wrong) >= _MOST_ERRORS or total > _MOST_LINES:
                break
        if total > _MOST_LINES or not total:
            too_many = batch_lines.fault("too_many_requests", f"A batch has at most {_MOST_LINES} lines.")
            wrong = [too_many if total else batch_lines.fault("empty_file", "The file has no lines.")]
        if wrong:
            return self._fail(batch, wrong)
        now = self._store.now_ms()
        return self._store.batches.update(batch, status="in_progress", in_progress_ms=now, total=total)

    def _fail(self, batch: Batch, errors: list[dict[str, Any]]) -> Batch:
        now = self._store.now_ms()
        batch = self._store.batches.update(batch, status="failed", failed_ms=now, errors=json.dumps(errors))
        self._close(batch)
        return batch

    # -- in progress

    def _work(self, batch: Batch) -> bool:
        state = self._state(batch)
        moved = self._collect(batch, state)
        key = self._key(batch)
        if batch.api_key and key is None:
            batch = self._store.batches.cancel(batch, self._store.now_ms())
        is_stopping = bool(batch.cancelling_ms) or self._store.now_ms() > batch.ends_ms
        if is_stopping:
            moved |= self._cancel(state)
        elif self._may_feed(batch, state):
            moved |= self._feed(batch, state, Caller(batch.owner, key))
        all_sent = is_stopping or len(state.lines) >= batch.total
        if all_sent and not state.running:
            now = self._store.now_ms()
            batch = self._store.batches.update(batch, status="finalizing", finalizing_ms=now, **_counts(state.lines))
            self._finalize(batch, state.lines)
            return True
        return moved

    def _state(self, batch: Batch) -> _Open:
        state = self._open.get(batch.id)
        if state is None:
            lines = self._store.batches.lines(batch)
            running = {n: text[1:] for n, text in lines.items() if text[0] == RUNS}
            state = self._open[batch.id] = _Open(lines, self._texts(batch, after=len(lines)), running=running)
        return state

    def _lines_of(self, batch: Batch) -> dict[int, str]:
        state = self._open.get(batch.id)
        return state.lines if state else self._store.batches.lines(batch)

    def _collect(self, batch: Batch, state: _Open) -> bool:
        """Note which of the jobs that ran have ended, and how; False when none has."""
        numbers = list(state.running)
        ended: dict[int, str] = {}
        for number, status in zip(numbers, self._store.jobs.statuses([state.running[n] for n in numbers]), strict=True):
            if status in ("queued", "in_progress", "cancelling"):
                continue
            mark = COMPLETED if status == "completed" else FAILED
            ended[number] = mark + state.running.pop(number)
        if ended:
            self._note(batch, state, ended)
            self._store.batches.update(batch, **_counts(state.lines))
        return bool(ended)

    def _may_feed(self, batch: Batch, state: _Open) -> bool:
        """Tell whether a line may become a job now; inputs are not stored for a queue that is full."""
        is_fed = len(state.lines) >= batch.total or len(state.running) >= _MOST_RUNNING
        if is_fed or time.monotonic() < state.rests_until:
            return False
        return sum(self._store.work.waiting().values()) < self._services.settings.max_queued_parts

    def _feed(self, batch: Batch, state: _Open, caller: Caller) -> bool:
        """Make jobs of the next lines, as many as may run; False when nothing came of any."""
        noted: dict[int, str] = {}
        try:
            while len(state.running) < _MOST_RUNNING:
                number, text = state.waiting or next(state.text, (0, b""))
                if not number:
                    break
                state.waiting = (number, text)
                try:
                    noted[number] = self._begin(batch, caller, number, text)
                except _LATER:
                    state.rests_until = time.monotonic() + _REST_S
                    break
                if noted[number][0] == RUNS:
                    state.running[number] = noted[number][1:]
                state.waiting = None
        finally:
            # Lines whose note is lost are begun again under the same keys, and find their jobs.
            self._note(batch, state, noted)
        return bool(noted)

    def _begin(self, batch: Batch, caller: Caller, number: int, text: bytes) -> str:
        """Make a job of a line and say what to note about it. Raises one of `_LATER`."""
        try:
            submission = batch_lines.submission(self._services, batch, batch_lines.read(text, batch.endpoint))
            made = self._services.submit.make(
                submission, caller=caller, idempotency_key=f"{batch.id} {number}", traceparent=""
            )
        except BlobMissing as error:
            return REFUSED + json.dumps(batch_lines.refused(error))
        except _LATER:
            raise
        except Phi4Error as error:
            return REFUSED + json.dumps(batch_lines.refused(error))
        except Exception as error:
            if _ran_out(error):
                raise ServiceError(f"No line can be begun: {error}.") from error
            _log.exception("a line failed", extra={"phi4_fields": {"batch": batch.id, "line": number}})
            return REFUSED + json.dumps(batch_lines.refused(ServiceError("The service failed on this line.")))
        return RUNS + made.job_id

    def _note(self, batch: Batch, state: _Open, noted: Mapping[int, str]) -> None:
        self._store.batches.note(batch, noted)
        state.lines.update(noted)

    def _key(self, batch: Batch) -> ApiKey | None:
        """The key that made the batch, whose limits hold for its lines; None without one, and when it was revoked."""
        key = self._store.access.keys().get(batch.api_key)
        return key if key and not key.revoked_ms else None

    def _cancel(self, state: _Open) -> bool:
        """Cancel what runs, once; False when nothing is left to cancel."""
        jobs, state.cancelled = () if state.cancelled else tuple(state.running.values()), True
        for job_id in jobs:
            cancelling.cancel(self._services, job_id, Cancelled("The batch was ended."))
        return bool(jobs)

    # -- finalizing

    def _finalize(self, batch: Batch, lines: dict[int, str]) -> None:
        """Write the files, end the batch, and erase its jobs."""
        read = ((number, batch_lines.read(text, batch.endpoint)) for number, text in self._texts(batch))
        output_file, error_file = self._output.write(batch, read, lines)
        status = self._output.end_of(batch, lines)
        told: dict[str, str | int] = {"status": status, f"{status}_ms": self._store.now_ms()}
        batch = self._store.batches.update(batch, **told, output_file=output_file, error_file=error_file)
        self._close(batch)
        self._output.erase_jobs(lines)
        log(_log, "batch over", batch=batch.id, status=status, completed=batch.completed, failed=batch.failed)

    def _close(self, batch: Batch) -> None:
        self._store.batches.close(batch)
        self._open.pop(batch.id, None)
        self._failures.pop(batch.id, None)
        self._let_go(batch.input_file)

    def _let_go(self, file_id: str) -> None:
        """Erase the bytes of an input file that its owner erased, or whose time ran out, while a batch read it."""
        if self._store.files.find(file_id) is None and not self._store.batches.reads(file_id):
            with suppress(Phi4Error):  # the sweep erases them anyway
                self._services.blobs.delete_folder(file_id)

    def _texts(self, batch: Batch, after: int = 0) -> Iterator[tuple[int, bytes]]:
        """Read the lines that are not blank, numbered from 1. Raises `BlobMissing`."""
        number = 0
        with self._services.blobs.as_file(f"{batch.input_file}/content") as path:
            for text in batch_lines.texts(path):
                self._hold()
                if text.strip():
                    number += 1
                    if number > after:
                        yield number, text


def _ran_out(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in _RAN_OUT


def _counts(lines: dict[int, str]) -> dict[str, int]:
    marks = [text[0] for text in lines.values()]
    return {"completed": marks.count(COMPLETED), "failed": marks.count(FAILED) + marks.count(REFUSED)}
