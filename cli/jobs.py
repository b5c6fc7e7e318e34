"""Runs jobs on a service: submit all, wait, hand over the results in order, cancel what nobody waits for any more."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from cli import show
from cli.delivery import Asked, Delivery, Outcome, Wanted, faults_of, undone
from cli.inputs import piped
from cli.remote import BrokenOff, Job, Refused, Remote, RemoteError, Unreachable
from cli.show import Fault, Progress
from phi4.job import Status

T = TypeVar("T")

#: Requests under way at a time: enough to keep a service busy, few enough to leave it room for others.
_SLOTS = 8
#: A long-poll holds one of the slots, so it is short.
_POLL_S = 2
#: A service with no room for another long-poll answers at once; do not press it.
_PAUSE_S = 0.5
#: A job that takes long is asked after less often: each time after this share of its time, and so many seconds at most.
_PAUSE_SHARE = 0.1
_MOST_PAUSE_S = 10.0
#: A service that is being restarted is back within this many seconds.
_PATIENCE_S = 30.0
#: What interrupting may take: a submission on its way to be answered, and its job to be cancelled.
_PARTING_S = 5.0
_BRIEFLY_AWAY = (502, 503, 504)
_WAITING = {
    "queue_full": "waiting for room in the queue",
    "rate_limited": "waiting: the key's requests for this minute are used up",
}
_AWAY = "waiting for the service"
_ENDED = frozenset(s.value for s in Status if s.is_terminal)


def run(asked: Sequence[Asked], wanted: Wanted, *, url: str) -> int:
    """Run jobs and show their outcomes; returns the exit code: 0, 1 when anything went wrong, 130 after Ctrl-C.

    What a run before has done is left out.
    """
    wished, asked = len(asked), undone(asked, wanted)
    progress = show.progress([one.name for one in asked])
    delivery = Delivery(asked, wanted, progress)
    batch = Batch(Remote(url), progress, wanted=wanted.text_format, timeout=wanted.timeout, at_once=wanted.at_once)
    try:
        with progress:
            _take_in(asked, progress)
            asyncio.run(batch.run(asked, delivery.hand_over))
    except KeyboardInterrupt:
        show.complain(f"interrupted{batch.parting}")
        return 130
    except Unreachable as error:
        show.complain(error.message)
        return 1
    if wished > 1 or wished > len(asked):
        show.say(_summary(len(asked) - delivery.faulty, wished - len(asked), delivery.faulty))
    return 1 if delivery.faulty else 0


def _take_in(asked: Sequence[Asked], progress: Progress) -> None:
    """Read what is piped in. Ctrl-C ends it here; within asyncio, it would wait for the end of the input."""
    for number, one in enumerate(asked):
        for path in one.files:
            if path.exists() and not path.is_file():
                progress.update(number, "waiting for input")
                with suppress(OSError):  # told when it is to be sent
                    piped(path)


def _summary(done: int, skipped: int, faulty: int) -> str:
    counts = ((done, "done"), (skipped, "done before (--again does all)"), (faulty, "with errors"))
    return ", ".join(f"{count} {what}" for count, what in counts if count)


class Batch:
    """Jobs that run at the same time.

    `wanted` is the format of their results, '' for none; `timeout` is in seconds, for all of them together.
    """

    def __init__(
        self, remote: Remote, progress: Progress, *, wanted: str, timeout: float | None, at_once: int = 32
    ) -> None:
        self._remote = remote
        self._progress = progress
        self._wanted = wanted
        self._timeout = timeout
        self._deadline: float | None = None
        self._slots = asyncio.Semaphore(_SLOTS)
        self._at_once = asyncio.Semaphore(at_once)
        #: The submission of every job that may have to be cancelled.
        self._submissions: dict[int, asyncio.Task[Job]] = {}
        #: How many jobs were cancelled because nobody waits for them any more, and how many could not be.
        self.cancelled = self.left = 0

    @property
    def parting(self) -> str:
        """Say what became of the jobs that had not ended."""
        counts = ((self.cancelled, "cancelled"), (self.left, "may still run"))
        return "".join(f"; {count} job{'s' * (count != 1)} {what}" for count, what in counts if count)

    async def run(self, asked: Sequence[Asked], deliver: Callable[[int, Outcome], None]) -> None:
        """Run the jobs and deliver each outcome, in the order asked, as soon as it is there.

        However it ends, no job is left running. Raises `Unreachable` when the service cannot even be asked.
        """
        async with self._remote:
            try:
                await self._run_all(asked, deliver)
            except ExceptionGroup as several:
                raise several.exceptions[0] from None
            finally:
                await asyncio.gather(*(self._abandon(number) for number in list(self._submissions)))

    async def _run_all(self, asked: Sequence[Asked], deliver: Callable[[int, Outcome], None]) -> None:
        if self._timeout is not None:
            self._deadline = asyncio.get_running_loop().time() + self._timeout
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._outcome(number, one)) for number, one in enumerate(asked)]
            for number, task in enumerate(tasks):
                deliver(number, await task)

    async def _outcome(self, number: int, asked: Asked) -> Outcome:
        try:
            async with asyncio.timeout_at(self._deadline), self._at_once:
                return await self._followed(number, asked)
        except TimeoutError:
            await self._abandon(number)
            return self._failed(number, asked, "timed_out", f"Not finished within {self._timeout:g} s, and given up.")
        except (Refused, BrokenOff) as error:
            return self._failed(number, asked, error.code, error.message)
        except OSError as error:
            return self._failed(
                number, asked, "unreadable_file", f"{error.strerror or error}: {error.filename or asked.name}"
            )

    async def _followed(self, number: int, asked: Asked) -> Outcome:
        job = await self._submitted(number, asked)
        try:
            job = await self._ended(number, job)
            self._submissions.pop(number)
            text = await self._text(number, job)
        except Refused as refusal:
            self._submissions.pop(number, None)
            return self._failed(number, asked, refusal.code, refusal.message, job)
        except RemoteError as error:
            self._submissions.pop(number, None)
            return self._failed(
                number, asked, error.code, f"The service is gone; {job['id']} may be there when it is back.", job
            )
        return Outcome(asked, job, text, tuple(faults_of(job)))

    async def _submitted(self, number: int, asked: Asked) -> Job:
        """Submit a job; again, as the same one, while the queue is full or a service we met is away for a moment."""
        key, tried = uuid.uuid4().hex, time.monotonic()
        while True:
            try:
                return await self._submit_once(number, asked, key)
            except Refused as refusal:
                if not _is_for_later(refusal):
                    raise
                pause, tried = refusal.retry_after, time.monotonic()
                self._progress.update(number, _WAITING.get(refusal.code, _AWAY))
            except Unreachable:
                if not self._remote.has_answered or time.monotonic() - tried > _PATIENCE_S:
                    raise
                pause = _PAUSE_S
                self._progress.update(number, _AWAY)
            await asyncio.sleep(pause)

    async def _submit_once(self, number: int, asked: Asked, key: str) -> Job:
        async with self._slots:
            self._progress.update(number, "sending")
            sending = self._remote.submit(
                asked.type, asked.files, asked.params, idempotency_key=key, webhook_url=asked.webhook_url
            )
            submission = self._submissions[number] = asyncio.create_task(sending)
            try:
                # Shielded, because a job that was accepted must be known by its id to be cancelled.
                return await asyncio.shield(submission)
            except (RemoteError, OSError):
                del self._submissions[number]
                raise

    async def _ended(self, number: int, job: Job) -> Job:
        """Wait for the end of a job."""
        begun = time.monotonic()
        while job["status"] not in _ENDED:
            self._progress.update(number, job)
            job = await self._next(number, job, begun)
        self._progress.update(number, job)
        return job

    async def _next(self, number: int, job: Job, begun: float) -> Job:
        asked_at = time.monotonic()
        seen = await self._patiently(number, lambda: self._remote.show(job["id"], wait=_POLL_S))
        if seen["status"] == job["status"]:
            await asyncio.sleep(max(0.0, asked_at + _pause(asked_at - begun) - time.monotonic()))
        return seen

    async def _text(self, number: int, job: Job) -> str | None:
        if job["status"] != Status.COMPLETED or not self._wanted:
            return None
        return await self._patiently(number, lambda: self._remote.result(job["id"], self._wanted))

    async def _patiently(self, number: int, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask after a job: across a short absence of the service, and as late as one that is there asks for."""
        heard = time.monotonic()
        while True:
            try:
                async with self._slots:
                    return await ask()
            except RemoteError as error:
                if isinstance(error, Refused) and _is_for_later(error):
                    pause, heard = error.retry_after, time.monotonic() + error.retry_after
                elif _may_be_back(error) and time.monotonic() - heard <= _PATIENCE_S:
                    pause = _PAUSE_S
                else:
                    raise
                self._progress.update(number, _WAITING.get(error.code, _AWAY))
            await asyncio.sleep(pause)

    def _failed(self, number: int, asked: Asked, code: str, message: str, job: Job | None = None) -> Outcome:
        self._progress.update(number, "failed")
        return Outcome(asked, job, faults=(Fault(code, message),))

    async def _abandon(self, number: int) -> None:
        """Cancel a job as far as that is possible in a moment."""
        submission = self._submissions.pop(number, None)
        if submission is None:
            return
        try:
            async with asyncio.timeout(_PARTING_S):
                await self._remote.cancel((await submission)["id"])
        except Refused:
            pass  # never accepted, or gone already
        except (RemoteError, OSError):
            self.left += 1
        else:
            self.cancelled += 1


def _may_be_back(error: RemoteError) -> bool:
    return not isinstance(error, Refused) or error.status in _BRIEFLY_AWAY


def _is_for_later(refusal: Refused) -> bool:
    """Whether a service that is there wants to be asked again: that costs no patience."""
    return refusal.status == 429 or refusal.code == "idempotency_in_flight"


def _pause(elapsed: float) -> float:
    return min(max(_PAUSE_S, elapsed * _PAUSE_SHARE), _MOST_PAUSE_S)
