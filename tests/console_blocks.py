"""Runs the ```console and ```python blocks of a document and compares what they print with what the document shows.

In what a document shows, `…` stands for anything, ids stand for those of the run (each for the same one throughout),
numbers after `":` stand for any number, `"queued"` for a job that may be begun meanwhile, and white space is free.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: A whole demonstration, on a machine that is busy with other tests.
_SECONDS = 300
_BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ID = r"\b[a-z]+_[0-9a-hjkmnp-tv-z]{26}\b"
_STANDS_FOR = {"…": ".*?", '"queued"': '"(?:queued|in_progress)"'}
_NOT_LITERAL = re.compile(rf'(…|"queued"|{_ID}|(?<=":)\s*[0-9][0-9.]*|\s+)')


@dataclass(frozen=True)
class Step:
    """A command, or a script, and what the document says that it prints ("" if it does not say)."""

    line: int
    argv: tuple[str, ...]
    source: str
    shown: str


@dataclass
class Reader:
    """Does what a document says, step by step, in one folder."""

    folder: Path
    env: Mapping[str, str]
    #: What the document says, and what to say here instead.
    instead: Mapping[str, str] = field(default_factory=dict)
    #: The run's id for each id of the document.
    ids: dict[str, str] = field(default_factory=dict)

    def follow(self, step: Step) -> None:
        """Run a step. Raises `AssertionError` when it fails, or prints something else than what is shown."""
        source = step.source
        for said, done in {**self.instead, **self.ids}.items():
            source = source.replace(said, done)
        argv = [*step.argv, source]
        run = subprocess.run(argv, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=_SECONDS)
        assert run.returncode == 0, f"line {step.line}: {source}\nends with {run.returncode}: {run.stdout}{run.stderr}"
        if step.shown:
            self.compare(step.shown, run.stdout, f"line {step.line}: {source}")

    def compare(self, shown: str, came: str, of: str) -> None:
        """Compare what a document shows with what came, and learn its ids. Raises `AssertionError`."""
        pattern, groups = self._pattern(shown)
        match = re.fullmatch(pattern, came.strip(), re.DOTALL)
        assert match, f"{of}\nprints:\n{came}\ninstead of:\n{shown}"
        self.ids.update({name: match[group] for group, name in groups.items()})

    def _pattern(self, shown: str) -> tuple[str, dict[str, str]]:
        """Make the pattern of what is shown, and say which group stands for which of its ids."""
        for said, done in self.instead.items():
            shown = shown.replace(said, done)
        groups: dict[str, str] = {}
        parts = [self._piece(piece, groups) for piece in _NOT_LITERAL.split(shown.strip()) if piece]
        return "".join(parts), groups

    def _piece(self, piece: str, groups: dict[str, str]) -> str:
        if piece in _STANDS_FOR:
            return _STANDS_FOR[piece]
        if piece.isspace():
            return r"\s*"
        if re.fullmatch(_ID, piece):
            return self._id(piece, groups)
        return r"\s*[0-9][0-9.]*" if re.fullmatch(r"\s*[0-9][0-9.]*", piece) else re.escape(piece)

    def _id(self, name: str, groups: dict[str, str]) -> str:
        if name in self.ids:
            return re.escape(self.ids[name])
        for group, known in groups.items():
            if known == name:
                return f"(?P={group})"
        group = f"id{len(groups)}"
        groups[group] = name
        return f"(?P<{group}>{_ID})"


def steps(document: str) -> list[Step]:
    """Find the steps of a document, in order."""
    found = []
    for block in _BLOCK.finditer(document):
        line = document.count("\n", 0, block.start()) + 2
        if block[1] == "python":
            shown = "\n".join(re.findall(r"# → (.*)$", block[2], re.MULTILINE))
            found.append(Step(line, ("python", "-c"), block[2], shown))
        else:
            found += _commands(block[2], line)
    return found


def _commands(block: str, line: int) -> Iterator[Step]:
    """Split a ```console block: a command begins with `$ ` and goes on to the end of quotes and backslashes."""
    command = ""
    shown: list[str] = []
    began = line
    for number, text in enumerate([*block.splitlines(), "$ "], line):
        if command and not shown and _goes_on(command):
            command += "\n" + text
        elif text.startswith("$ "):
            if command:
                yield Step(began, ("bash", "-c"), command, "\n".join(shown))
            command, shown, began = text[2:], [], number
        else:
            shown.append(text)


def _goes_on(command: str) -> bool:
    try:
        shlex.split(command)
    except ValueError:
        return True
    return False
