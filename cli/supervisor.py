"""Keeps a few child processes running: starts them in order, restarts those that die, drains them in reverse order."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType

from cli.child import Child, Output, Process, ending

__all__ = ["Child", "Supervisor"]

_TICK = 0.05
_FIRST_DELAY = 0.5
_LONGEST_DELAY = 30.0
# A child that lived this long was healthy: its next death starts over with the first delay.
_HEALTHY_SECONDS = 60.0


class StartFailed(Exception):
    """A child did not come up."""


@dataclass
class Backoff:
    """How long to wait before a child that died is started again: 0.5 s, doubling up to 30 s."""

    delay: float = 0.0

    def after(self, lived: float) -> float:
        """The delay, in seconds, after a life of `lived` seconds."""
        self.delay = _FIRST_DELAY if lived >= _HEALTHY_SECONDS or not self.delay else self.delay * 2
        self.delay = min(self.delay, _LONGEST_DELAY)
        return self.delay


@dataclass
class _Post:
    """A child's place: the process that holds it now, and when the next one may start."""

    child: Child
    process: Process | None = None
    restart_at: float | None = None
    backoff: Backoff = field(default_factory=Backoff)


class Supervisor:
    """Runs `children`, first to last; on the way down, last to first: list the database first and the API last.

    `grace`: seconds that each child gets, from the SIGTERM it is sent, before its group is killed.
    `on_event` takes one message per event (a failed start has several lines), from the thread of `run`.
    """

    def __init__(self, children: Sequence[Child], *, grace: float = 60.0, on_event: Callable[[str], None]) -> None:
        if len({child.name for child in children}) < len(children):
            raise ValueError("two children have the same name")
        self._posts = [_Post(child) for child in children]
        self._grace = grace
        self._on_event = on_event
        self._output = Output(children)
        self._stopping = False
        self._killing = False

    def run(self, *, install_signals: bool = False) -> int:
        """Run until stopped; 0 after a clean drain, 1 when a child had to be killed or did not start.

        All children are started from the calling thread and, on Linux, do not outlive it. With `install_signals` (main
        thread only) the first SIGINT or SIGTERM is `stop`, the second `kill`.
        """
        with self._signals() if install_signals else contextlib.nullcontext():
            started, clean = True, False
            try:
                self._start_all()
                self._watch()
            except StartFailed as error:
                started = False
                self._report(str(error))
            finally:
                clean = self._stop_all()
                self._output.close()
        return 0 if started and clean else 1

    def stop(self) -> None:
        """Have `run` drain the children and return; from any thread or signal handler, any number of times."""
        self._stopping = True

    def kill(self) -> None:
        """Have `run` kill every child's group and return; from any thread or signal handler."""
        self._killing = self._stopping = True

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def take(number: int, frame: FrameType | None) -> None:
            # Nothing but flags is touched here: a signal may interrupt a report half-way.
            if self._stopping:
                self.kill()
            else:
                self.stop()

        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup has it
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, take) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start_all(self) -> None:
        for post in self._posts:
            if self._stopping:
                return
            process = self._start(post)
            if post.child.ready is not None:
                self._await_ready(post.child, process, post.child.ready)

    def _start(self, post: _Post) -> Process:
        post.restart_at = None
        post.process = Process(post.child, self._output)
        self._report(f"{post.child.name} started (process {post.process.pid})")
        return post.process

    def _await_ready(self, child: Child, process: Process, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + child.ready_timeout
        while not self._stopping:
            code = process.exit_code()
            if code is not None:
                raise _failed(child, process, f"{ending(code)} while starting")
            if ready():
                self._report(f"{child.name} is ready")
                return
            if time.monotonic() > deadline:
                raise _failed(child, process, f"was not ready after {child.ready_timeout:g} s")
            self._restart_the_dead(besides=child)
            time.sleep(_TICK)

    def _watch(self) -> None:
        while not self._stopping:
            self._restart_the_dead()
            time.sleep(_TICK)

    def _restart_the_dead(self, besides: Child | None = None) -> None:
        for post in self._posts:
            if post.process is None or post.child is besides:
                continue
            if post.restart_at is None:
                self._notice_death(post, post.process)
            elif time.monotonic() >= post.restart_at:
                self._start(post)

    def _notice_death(self, post: _Post, process: Process) -> None:
        code = process.exit_code()
        if code is None:
            return
        # What it left behind may hold its port or its GPU memory.
        process.kill()
        delay = post.backoff.after(time.monotonic() - process.started_at)
        post.restart_at = time.monotonic() + delay
        self._report(f"{post.child.name} {ending(code)}; starting it again in {delay:g} s")

    def _stop_all(self) -> bool:
        """Stop last to first, one after another, so that each child finds those that it needs still running."""
        self._stopping = True
        left = [post for post in reversed(self._posts) if post.process is not None]
        clean = [self._stop_one(post.child.name, post.process) for post in left if post.process is not None]
        return all(clean)

    def _stop_one(self, name: str, process: Process) -> bool:
        """Whether it ended by itself."""
        clean = True
        if process.exit_code() is None:
            self._report(f"stopping {name}")
            process.terminate()
            code = self._await_end(process)
            killed = f"was killed {'as asked' if self._killing else f'after {self._grace:g} s of grace'}"
            self._report(f"{name} {killed if code is None else ending(code)}")
            clean = code is not None
        process.kill()
        process.last_lines()
        return clean

    def _await_end(self, process: Process) -> int | None:
        deadline = time.monotonic() + self._grace
        while (code := process.exit_code()) is None and not self._killing and time.monotonic() < deadline:
            time.sleep(_TICK)
        return code

    def _report(self, message: str) -> None:
        # Whoever read the messages may be gone (`phi4 up | head`); the children must still be looked after.
        with contextlib.suppress(OSError, ValueError):
            self._on_event(message)


def _failed(child: Child, process: Process, what: str) -> StartFailed:
    process.kill()
    lines = process.last_lines()
    said = "\nIts last lines:\n" + "\n".join(f"  {line}" for line in lines) if lines else ""
    return StartFailed(f"{child.name} {what}.{said}")
