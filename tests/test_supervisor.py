"""The supervisor, run for real on the small programs in tests/children."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from cli.child import Output, ending
from cli.supervisor import Backoff, Child, Supervisor

ROOT = Path(__file__).parents[1]
CHILDREN = ROOT / "tests" / "children"
TETHER = (sys.executable, "-I", "-S", str(ROOT / "cli" / "tether.py"))

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals the children of a dead parent")


def script(name: str, *arguments: object) -> tuple[str, ...]:
    """The command line of a program in tests/children."""
    return (sys.executable, str(CHILDREN / f"{name}.py"), *map(str, arguments))


def until(condition: Callable[[], object]) -> None:
    """Wait until something is so; fail after 20 s."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited for 20 s in vain"
        time.sleep(0.02)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def gone(pid: int) -> bool:
    """Whether the process has ended (one that nobody has reaped yet has)."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def await_end_of(journal: Path) -> None:
    """Wait until every process whose number the journal has is gone; there must be one."""
    pids = [int(pid) for pid in re.findall(r"\d+", journal.read_text())]

    assert pids
    until(lambda: all(map(gone, pids)))


class Run:
    """A supervisor in a thread of its own, its events, and its exit code once it has ended."""

    def __init__(self, *children: Child, grace: float = 20.0) -> None:
        self.events: list[str] = []
        self.code: int | None = None
        self.supervisor = Supervisor(children, grace=grace, on_event=self.events.append)
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        self.code = self.supervisor.run()

    def finished(self) -> int | None:
        """The exit code, after waiting for it."""
        self.thread.join(20)
        return self.code

    def said(self, text: str) -> bool:
        return any(text in event for event in self.events)


@contextlib.contextmanager
def running(*children: Child, grace: float = 20.0) -> Iterator[Run]:
    run = Run(*children, grace=grace)
    run.thread.start()
    try:
        yield run
    finally:
        run.supervisor.kill()
        run.thread.join(20)


@contextlib.contextmanager
def supervise(grace: float, *children: str, stdout: int = subprocess.PIPE) -> Iterator[subprocess.Popen[str]]:
    """A supervisor in a process of its own."""
    process = subprocess.Popen(
        script("supervise", grace, *children),
        stdout=stdout,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """The first line of output that has the text."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(f"the supervisor ended without saying {text!r}")


def test_children_start_in_order_and_stop_in_reverse(tmp_path: Path) -> None:
    """A child starts when the one before it is ready; it stops when the one after it has ended."""
    journal = tmp_path / "journal"

    def child(name: str) -> Child:
        argv = script("runs_until_told", journal, name)
        return Child(name, argv, ready=lambda: f"{name} started" in str(lines(journal)))

    with running(child("database"), child("worker"), child("api")) as run:
        until(lambda: run.said("api is ready"))
        run.supervisor.stop()
        code = run.finished()

    said = [line.rstrip(" 0123456789") for line in lines(journal)]
    assert code == 0
    assert said == [
        "database started", "worker started", "api started", "api stopped", "worker stopped", "database stopped"
    ]  # fmt: skip


def test_a_child_that_dies_while_starting_ends_the_start_and_is_named_with_its_last_lines(tmp_path: Path) -> None:
    """The start fails at once, says which child and what it said last, and stops the children started before it."""
    journal = tmp_path / "journal"
    first = Child("first", script("runs_until_told", journal, "first"), ready=lambda: bool(lines(journal)))
    never = Child("never", script("runs_until_told", journal, "never"))

    with running(first, Child("engine", script("dies_at_once"), ready=lambda: False), never) as run:
        code = run.finished()

    assert code == 1
    assert run.said(
        "engine ended with exit code 3 while starting.\n"
        "Its last lines:\n"
        "  reading the weights\n"
        "  the weights are missing"
    )
    assert lines(journal)[1:] == ["first stopped"]


def test_a_program_that_is_not_there_fails_the_start_with_its_name() -> None:
    """A wrong command line is reported as a child that died while starting, with the reason."""
    with running(Child("api", ("no-such-program",), ready=lambda: False)) as run:
        code = run.finished()

    assert code == 1
    assert run.said("cannot start no-such-program: No such file or directory")


def test_a_child_that_is_never_ready_fails_the_start(tmp_path: Path) -> None:
    """After `ready_timeout` the start fails and the child is ended."""
    journal = tmp_path / "journal"

    def ready() -> bool:
        until(lambda: lines(journal))
        return False

    with running(Child("api", script("ignores_sigterm", journal), ready=ready, ready_timeout=0.1)) as run:
        code = run.finished()

    assert code == 1
    assert run.said("api was not ready after 0.1 s")
    await_end_of(journal)


def test_a_child_that_dies_is_started_again_and_what_it_left_behind_is_ended(tmp_path: Path) -> None:
    """Each restart is one line with the way it ended and the growing delay; nothing of the dead child's group stays."""
    journal = tmp_path / "journal"

    with running(Child("worker", script("dies_and_leaves_a_helper", journal))) as run:
        until(lambda: len(lines(journal)) == 3)
        until(lambda: run.said("in 2 s"))
        run.supervisor.stop()
        code = run.finished()

    deaths = [event for event in run.events if "again" in event]
    assert code == 0
    assert deaths == [
        f"worker was ended by SIGKILL (exit code -9); starting it again in {delay} s" for delay in ("0.5", "1", "2")
    ]
    await_end_of(journal)


@pytest.mark.parametrize(
    ("lives", "delays"),
    [
        ([0, 0, 0], [0.5, 1, 2]),
        # It never waits longer than half a minute.
        ([0] * 9, [0.5, 1, 2, 4, 8, 16, 30, 30, 30]),
        # A minute of health starts over.
        ([0, 0, 60, 0], [0.5, 1, 0.5, 1]),
        ([0, 0, 59, 59], [0.5, 1, 2, 4]),
    ],
)
def test_the_delay_before_a_restart_doubles_to_thirty_seconds(lives: list[float], delays: list[float]) -> None:
    """The delay grows from 0.5 s to 30 s, and is back at 0.5 s after a life of a minute."""
    backoff = Backoff()

    assert [backoff.after(lived) for lived in lives] == delays


def test_an_exit_code_or_signal_is_told_in_words() -> None:
    """A negative exit code is the signal that ended the process."""
    assert ending(1) == "ended with exit code 1"
    assert ending(-15) == "was ended by SIGTERM (exit code -15)"


def test_a_child_that_outlives_its_grace_is_killed_with_its_group(tmp_path: Path) -> None:
    """When the grace is over the whole group is killed, and the exit code is 1."""
    journal = tmp_path / "journal"

    with running(Child("worker", script("ignores_sigterm", journal)), grace=0.3) as run:
        until(lambda: lines(journal))
        run.supervisor.stop()
        code = run.finished()

    assert code == 1
    assert run.said("worker was killed after 0.3 s of grace")
    await_end_of(journal)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_first_signal_drains_and_reaches_the_child_only(tmp_path: Path, number: int) -> None:
    """A child drains in its own time with its helpers untouched; the supervisor then exits with 0."""
    journal, go_on = tmp_path / "journal", tmp_path / "go on"

    with supervise(20, f"drains_slowly,{journal},{go_on}") as process:
        read_until(process, "working")
        process.send_signal(number)
        read_until(process, "draining")
        go_on.touch()
        code = process.wait(20)

    assert code == 0
    assert journal.read_text() == "helper was spared"


def test_the_second_signal_kills_every_childs_group(tmp_path: Path) -> None:
    """Whoever does not want to wait for the drain signals again; the exit code says that it was not clean."""
    first, second = tmp_path / "first", tmp_path / "second"

    with supervise(300, f"runs_until_told,{first},first", f"ignores_sigterm,{second}") as process:
        until(lambda: lines(first) and lines(second))
        process.send_signal(signal.SIGINT)
        read_until(process, "stopping ignores_sigterm")
        process.send_signal(signal.SIGINT)
        code = process.wait(20)

    assert code == 1
    await_end_of(first)
    await_end_of(second)


@linux_only
def test_children_do_not_outlive_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    """The kernel sends them SIGTERM when the supervisor dies, however it dies."""
    journal = tmp_path / "journal"

    with supervise(20, f"runs_until_told,{journal},worker") as process:
        until(lambda: lines(journal))
        process.kill()
        await_end_of(journal)

    assert lines(journal)[1:] == ["worker stopped"]


@linux_only
def test_a_child_whose_parent_died_before_it_was_tied_ends_quietly() -> None:
    """No signal would come any more, so the program is not even begun."""
    ended = subprocess.run([*TETHER, str(os.getpid() + 1), "echo", "begun"], capture_output=True, text=True)

    assert (ended.returncode, ended.stdout) == (1, "")


@linux_only
def test_a_child_starts_with_no_signal_ignored() -> None:
    """What Python ignores for itself (a broken pipe) is not handed on to the program."""
    ended = subprocess.run([*TETHER, str(os.getpid()), "grep", "SigIgn", "/proc/self/status"], capture_output=True)

    ignored = int(ended.stdout.split()[1], 16)
    of_python = [signal.SIGPIPE, signal.SIGXFSZ]  # others may come from whatever started the tests
    assert [number for number in of_python if ignored >> (number - 1) & 1] == []


def test_a_child_leads_its_own_session(tmp_path: Path) -> None:
    """A terminal's Ctrl-C goes to the supervisor alone."""
    journal = tmp_path / "journal"

    with running(Child("worker", script("runs_until_told", journal, "worker"))):
        until(lambda: lines(journal))
        pid = int(lines(journal)[0].split()[2])

        assert os.getsid(pid) == pid


def test_a_supervisor_stopped_before_it_runs_starts_nothing(tmp_path: Path) -> None:
    """`stop` counts also when it comes first, and often."""
    run = Run(Child("worker", script("dies_at_once")))
    run.supervisor.stop()
    run.supervisor.stop()
    run.thread.start()

    assert run.finished() == 0
    assert run.events == []


def test_a_stop_during_the_start_is_a_clean_drain(tmp_path: Path) -> None:
    """Whoever changes their mind while an engine loads does not wait for it, and later children are not started."""
    journal = tmp_path / "journal"
    engine = Child("engine", script("runs_until_told", journal, "engine"), ready=lambda: False)

    with running(engine, Child("api", script("dies_at_once"))) as run:
        until(lambda: lines(journal))
        run.supervisor.stop()
        code = run.finished()

    assert code == 0
    assert not run.said("api")


def test_output_passes_through_unchanged_where_it_is_not_a_terminal() -> None:
    """A log collector gets the children's own lines."""
    with supervise(20, "dies_at_once") as process:
        line = read_until(process, "reading the weights")

    assert line == "reading the weights\n"


def test_output_on_a_terminal_is_prefixed_with_the_childs_name_in_colour() -> None:
    """A person sees who says what."""
    ours, theirs = pty.openpty()
    seen = b""
    with open(ours, "rb", buffering=0) as terminal, supervise(20, "dies_at_once", stdout=theirs):
        os.close(theirs)
        while b"missing" not in seen:
            seen += terminal.read(4096)

    assert re.search(rb"\x1b\[\d+mdies_at_once \|\x1b\[0m the weights are missing", seen)


def test_a_reader_that_goes_away_does_not_stop_the_children(tmp_path: Path) -> None:
    """`phi4 up | head` closes the pipe; the children write on without blocking."""
    done = tmp_path / "done"

    with supervise(20, f"talks_a_lot,{done}") as process:
        read_until(process, "line 0 of")
        assert process.stdout is not None
        process.stdout.close()
        until(done.exists)
        process.terminate()
        code = process.wait(20)

    assert code == 0


def test_output_of_a_child_with_a_log_goes_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both streams are appended to the log file, and nothing of them to stdout."""
    log = tmp_path / "logs" / "engine.log"

    with running(Child("engine", script("dies_at_once"), ready=lambda: False, log=log)) as run:
        run.finished()

    assert lines(log) == ["reading the weights", "the weights are missing"]
    assert capsys.readouterr().out == ""


def test_a_log_is_rotated_and_its_oldest_part_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that runs for years does not fill the disk: four files at most, each within its bound."""
    monkeypatch.setattr("cli.child._LOG_BYTES", 1000)
    child = Child("engine", ("true",), log=tmp_path / "engine.log")
    output = Output([child])
    for number in range(1000):
        output.write(child, f"line {number}")
    output.close()

    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes.keys() == {"engine.log", "engine.log.1", "engine.log.2", "engine.log.3"}
    assert max(sizes.values()) <= 1000
    assert lines(tmp_path / "engine.log")[-1] == "line 999"


def test_output_that_is_not_utf8_goes_on(tmp_path: Path) -> None:
    """Odd bytes are replaced; they neither end the listening nor the child."""
    log = tmp_path / "engine.log"
    argv = ("printf", r"caf\351\nand on\n")

    with running(Child("engine", argv, ready=lambda: False, log=log)) as run:
        run.finished()

    assert lines(log) == ["caf\N{REPLACEMENT CHARACTER}", "and on"]


def test_two_children_of_one_name_are_refused() -> None:
    """Events and prefixes would not tell them apart."""
    with pytest.raises(ValueError, match="same name"):
        Supervisor([Child("a", ("true",)), Child("a", ("true",))], on_event=print)
