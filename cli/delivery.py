"""What the user asked for, what became of it, and handing that over: results to stdout or files, faults to stderr."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cli import show
from cli.inputs import STDIN
from cli.remote import Job
from cli.show import Fault, Progress
from phi4.job import Status
from phi4.params import JobType


@dataclass(frozen=True, slots=True)
class Asked:
    """One job as the user asked for it."""

    name: str
    type: JobType
    files: tuple[Path, ...]
    params: Mapping[str, Any]
    webhook_url: str = ""
    place: Path | None = None  #: of its result, in the folder for results, without a suffix


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of it; `text` is the result in the format wanted, where there is one."""

    asked: Asked
    job: Job | None = None
    text: str | None = None
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user wants to have: a format of the API, as JSON objects instead, or as files with this suffix."""

    format: str
    suffix: str = ".txt"
    as_json: bool = False
    out: Path | None = None
    timeout: float | None = None  #: in seconds, for all jobs together
    at_once: int = 32  #: jobs that wait or run at a time
    again: bool = False  #: also what has a result that is newer than its input

    @property
    def text_format(self) -> str:
        """The format to fetch results in; '' when the job itself says enough."""
        return "" if self.as_json and self.out is None else self.format


class Delivery:
    """Hands each outcome to the user: results to stdout or files, faults to stderr."""

    def __init__(self, asked: Sequence[Asked], wanted: Wanted, progress: Progress) -> None:
        self._wanted = wanted
        self._progress = progress
        self._several = len(asked) > 1
        self._file_names = file_names(asked, wanted.suffix)
        self._written = 0
        self.faulty = 0

    def hand_over(self, number: int, outcome: Outcome) -> None:
        """Show one outcome. Raises `OSError` when stdout is closed."""
        self.faulty += bool(outcome.faults)
        with self._progress.pause_without(number):
            for fault in outcome.faults:
                show.say_fault(outcome.asked.name, fault)
            if outcome.text is not None and self._wanted.out is not None:
                self._save(self._wanted.out / self._file_names[number], outcome.text)
            elif outcome.text is not None:
                self._print(outcome.asked.name, outcome.text)
            if self._wanted.as_json:
                show.write_json(_as_json(outcome))

    def _print(self, name: str, text: str) -> None:
        if self._several:
            show.write(f"{chr(10) * bool(self._written)}==> {show.printable(name)} <==\n")
        show.write(text if text.endswith("\n") or not text else text + "\n")
        self._written += 1

    def _save(self, path: Path, text: str) -> None:
        half = path.with_name(f".{path.name}.half")  # what is interrupted must not look finished the next time
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            half.write_text(text, encoding="utf-8")
            half.replace(path)
        except OSError as error:
            self.faulty += 1
            show.say_fault(str(path), Fault("unwritable_file", f"{error.strerror or error}."))
            return
        if not self._wanted.as_json:
            show.write(f"{path}\n")


def file_names(asked: Sequence[Asked], suffix: str) -> list[str]:
    """Name a file for each job after its input: with its ending where it tells it from others, else numbered.

    A number changes its owner when a file is added before it.
    """
    names: dict[str, None] = {}
    endings = Counter(stem for stem, _ in {(_stem(one), _ending(one)) for one in asked})
    for one in asked:
        place, count = _stem(one), 1
        if endings[place] > 1:
            place += _ending(one)
        name = f"{place}{suffix}"
        while name in names:
            count += 1
            name = f"{place}-{count}{suffix}"
        names[name] = None
    return list(names)


def _stem(one: Asked) -> str:
    return str(one.place or Path(one.name).stem)


def _ending(one: Asked) -> str:
    return one.files[0].suffix if one.files else ""


def undone(asked: Sequence[Asked], wanted: Wanted) -> list[Asked]:
    """Leave out what has a result already that is not older than its input: so a long run goes on where it stopped."""
    if wanted.out is None or wanted.again:
        return list(asked)
    targets = [wanted.out / name for name in file_names(asked, wanted.suffix)]
    return [
        replace(one, place=target.relative_to(wanted.out).with_suffix(""))
        for one, target in zip(asked, targets, strict=True)
        if not _is_done(target, one.files)
    ]


def _is_done(target: Path, files: Sequence[Path]) -> bool:
    if STDIN in files:
        return False  # nobody knows what came through it before
    try:
        return target.stat().st_mtime >= max(file.stat().st_mtime for file in files)
    except OSError:
        return False


def _as_json(outcome: Outcome) -> dict[str, Any]:
    """Show the job with the files it was made of; where none came to be, what went wrong."""
    files = {"files": [str(path) for path in outcome.asked.files]}
    if outcome.job is not None:
        return files | outcome.job
    fault = outcome.faults[0]
    return files | {"object": "error", "error": {"code": fault.code, "message": fault.message}}


def faults_of(job: Job) -> list[Fault]:
    """List what went wrong in a job that ended: the whole, or single pages or clips."""
    if job["status"] != Status.COMPLETED:
        error = job.get("error") or {"code": job["status"], "message": f"The job is {job['status']}."}
        return [_fault(error)]
    result = job.get("result") or {}
    pages = [_fault(p["error"], f"page {p.get('page')}: ") for p in result.get("pages") or [] if p.get("error")]
    clips = [_fault(c["error"], f"from {c.get('start')} s to {c.get('end')} s: ") for c in result.get("errors") or []]
    return pages + clips


def _fault(error: Mapping[str, Any], where: str = "") -> Fault:
    return Fault(str(error.get("code")), f"{where}{error.get('message')}")
