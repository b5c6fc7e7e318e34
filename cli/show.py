"""What the user sees: progress on stderr, results and tables on stdout; plain text where there is no terminal."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_PROGRAM = "phi4"
_BAR_WIDTH = 24
#: Lines of the terminal that are not for bars: the prompt above, and the line that counts the rest.
_OTHER_LINES = 2
#: What a cell that is one of these words looks like on a terminal.
_LOOKS = dict.fromkeys(("completed", "delivered"), "green") | dict.fromkeys(("failed", "gone", "given_up"), "red")
_LOOKS |= dict.fromkeys(("in_progress", "cancelling", "pending"), "yellow")
#: Everything that may move the cursor or hide text, but line breaks and tabs.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that went wrong, as the service names and says it."""

    code: str
    message: str


class Progress(Protocol):
    """Shows how far each of several jobs is."""

    def __enter__(self) -> Progress:
        """Begin to show."""

    def __exit__(self, *_: object) -> None:
        """Stop, leaving the terminal as it was."""

    def update(self, number: int, now: Mapping[str, Any] | str) -> None:
        """Show a job, or a word on what it is waiting for."""

    def pause_without(self, number: int) -> AbstractContextManager[None]:
        """Make room, as a context manager, for the outcome of a job that needs no bar any more."""


def progress(names: Sequence[str]) -> Progress:
    """Give bars on a terminal, else one line for each change of status."""
    return Bars(names) if sys.stderr.isatty() else Lines(names)


class Lines:
    """Progress for logs."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._said: set[tuple[int, str]] = set()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, number: int, now: Mapping[str, Any] | str) -> None:
        """Say it once for each job: what is waited for may come and go a hundred times."""
        text = now if isinstance(now, str) else str(now["status"]).replace("_", " ")
        if (number, text) not in self._said:
            self._said.add((number, text))
            say(f"{self._names[number]}: {text}")

    @contextmanager
    def pause_without(self, number: int) -> Iterator[None]:
        """Lines are never in the way."""
        yield


class Bars:
    """Progress for people: one bar for each job whose outcome has not been shown yet, as far as the screen goes."""

    def __init__(self, names: Sequence[str]) -> None:
        self._console = Console(stderr=True)
        self._names = names
        self._now: dict[int, Mapping[str, Any] | str] = dict.fromkeys(range(len(names)), "waiting")
        self._live: Live | None = None

    def __enter__(self) -> Bars:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def update(self, number: int, now: Mapping[str, Any] | str) -> None:
        """Show it with the next refresh."""
        self._now[number] = now

    @contextmanager
    def pause_without(self, number: int) -> Iterator[None]:
        """Take the bars away, this job's for good."""
        self._stop()
        self._now.pop(number, None)
        try:
            yield
        finally:
            self._start()

    def _start(self) -> None:
        # A Live that was stopped still remembers where it was: each stretch gets a new one.
        self._live = Live(
            console=self._console,
            get_renderable=self._table,
            refresh_per_second=8,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start(refresh=True)

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _table(self) -> Table:
        now = list(self._now.items())
        room = max(1, self._console.height - _OTHER_LINES)
        table = Table.grid(padding=(0, 1))
        for number, state in now[:room]:
            table.add_row(_short(self._names[number]), _bar(state), Text(standing(state), no_wrap=True))
        if len(now) > room:
            table.add_row(Text(f"and {len(now) - room} more"))
        return table


def _short(name: str) -> Text:
    text = Text(printable(name), no_wrap=True)
    text.truncate(32, overflow="ellipsis", pad=True)
    return text


def _bar(state: Mapping[str, Any] | str) -> ProgressBar:
    progress = {} if isinstance(state, str) else state["progress"]
    total = progress.get("total")
    return ProgressBar(total=total or 1, completed=progress.get("completed", 0) if total else 0, width=_BAR_WIDTH)


def standing(state: Mapping[str, Any] | str) -> str:
    """Say in a few words where a job stands."""
    if isinstance(state, str):
        return state
    words = [str(state["status"]).replace("_", " ")]
    if count := counted(state["progress"]):
        words.append(count)
    queue = state.get("queue") or {}
    if queue.get("reason") == "no_worker_for_type":
        words.append("no worker serves this type yet")
    elif ahead := queue.get("position"):
        words.append(f"{ahead}{'+' if queue.get('position_is_at_least') else ''} ahead")
    return ", ".join(words)


def counted(progress: Mapping[str, Any]) -> str:
    """Say how many pages or clips are done; '' while nobody knows how many there are."""
    total = progress.get("total")
    return f"{progress['completed']}/{total} {progress['unit']}{'s' * (total != 1)}" if total else ""


def printable(text: str) -> str:
    """Make text harmless for a terminal: what a page or a file name holds must not steer it."""
    return _CONTROLS.sub("\ufffd", text)


def say(message: str) -> None:
    """Write one line to stderr."""
    print(printable(message), file=sys.stderr, flush=True)


def complain(message: str) -> None:
    """Write one line to stderr that names this program, so that it is known among others' lines."""
    if sys.stderr.isatty():
        _print(Console(stderr=True), (f"{_PROGRAM}:", "bold red"), f" {printable(message)}")
    else:
        say(f"{_PROGRAM}: {message}")


def verdict(message: str, *, is_well: bool) -> None:
    """Write one line to stdout that begins with "ok" or "not ok"."""
    word, look = ("ok    ", "green") if is_well else ("not ok", "bold red")
    if sys.stdout.isatty():
        _print(Console(), (word, look), f"  {printable(message)}")
    else:
        write(f"{word}  {printable(message)}\n")


def _print(console: Console, *pieces: str | tuple[str, str]) -> None:
    console.print(Text.assemble(*pieces), soft_wrap=True)


def say_fault(name: str, fault: Fault) -> None:
    """Write what went wrong to stderr: whose fault, the sentence, the code."""
    complain(f"{name}: {fault.message} ({fault.code})")


def write(text: str) -> None:
    """Write a result to stdout: as it is to a file or pipe, harmless to a terminal."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def write_json(value: Mapping[str, Any]) -> None:
    """Write one JSON object on one line to stdout."""
    write(json.dumps(value, ensure_ascii=False) + "\n")


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table to stdout; with tabs where there is no terminal."""
    if not sys.stdout.isatty():
        for row in (headers, *rows):
            write("\t".join(printable(cell).replace("\t", " ").replace("\n", " ") for cell in row) + "\n")
        return
    shown = Table(*headers, box=None, header_style="bold", pad_edge=False)
    shown.columns[0].no_wrap = True
    for row in rows:
        shown.add_row(*(Text(printable(cell), _LOOKS.get(cell, ""), overflow="ellipsis") for cell in row))
    Console().print(shown)


def jobs(listed: Sequence[Mapping[str, Any]]) -> None:
    """Write a table of jobs to stdout."""
    when = _when_briefly if sys.stdout.isatty() else _when
    rows = [
        [str(j["id"]), j["type"], j["status"], when(j["created_at"]), counted(j["progress"]), _files(j)] for j in listed
    ]
    table(("ID", "TYPE", "STATUS", "CREATED", "DONE", "INPUT"), rows)


def job(shown: Mapping[str, Any]) -> None:
    """Write what is known of one job to stdout, without its result."""
    error = shown.get("error")
    fields = {
        "id": shown["id"],
        "type": shown["type"],
        "status": standing(shown),
        "created": _when(shown["created_at"]),
        "started": _when(shown.get("started_at")),
        "ended": _when(shown.get("completed_at")),
        "expires": _when(shown["expires_at"]),
        "input": _files(shown),
        "params": json.dumps(shown["params"], ensure_ascii=False),
        "model": f"{shown['model']} ({shown['engine']})" if shown.get("engine") else shown["model"],
        "cached from": shown.get("cached_from", ""),
        "usage": ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in shown["usage"].items()),
        "error": f"{error['message']} ({error['code']})" if error else "",
    }
    table(("FIELD", "VALUE"), [[name, str(value)] for name, value in fields.items() if value])


def delivery(shown: Mapping[str, Any]) -> None:
    """Write one webhook and its tries to stdout."""
    rows = [[shown["id"], shown["event"], shown["state"], _when(shown["created_at"])]]
    for attempt in shown["attempts"]:
        said = str(attempt["status"] or attempt["error"])
        rows.append([f"  try {attempt['number']}", said, f"{attempt['duration_ms']} ms", _when(attempt["at"])])
    if shown["next_attempt_at"]:
        rows.append(["  next", "", "", _when(shown["next_attempt_at"])])
    table(("WEBHOOK", "EVENT", "STATE", "WHEN"), rows)


def _files(shown: Mapping[str, Any]) -> str:
    return ", ".join(i.get("filename") or i.get("url") or i.get("media_type") or "?" for i in shown["input"])


def _when(seconds: int | None) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds") if seconds else ""


def _when_briefly(seconds: int) -> str:
    """Say the time of day, or the day when that is not today: a narrow terminal has room for no more."""
    then = datetime.fromtimestamp(seconds)
    return f"{then:%H:%M:%S}" if then.date() == datetime.now().date() else f"{then.day} {then:%b %Y}"
