"""The `phi4` command on a terminal: bars, tables, and text that cannot steer it."""

from __future__ import annotations

import contextlib
import os
import pty
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scripted_api import Command, Files, Scripted, running, started


@pytest.fixture
def api() -> Iterator[Scripted]:
    """A running jobs API."""
    with running() as script:
        yield script


@pytest.fixture
def phi4(api: Scripted) -> Command:
    """The command against that API."""
    return Command(api.url)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Makes small files."""
    return Files(tmp_path)


def on_a_terminal(*words: object, url: str, **more: Any) -> str:
    """What a terminal is sent that is the command's stderr and, unless `more` says otherwise, its stdout."""
    ours, theirs = pty.openpty()
    process = started(*words, url=url, **({"stdout": theirs} | more), stderr=theirs)
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):  # Linux says EIO when the other side has closed
        while piece := os.read(ours, 65_536):
            seen += piece
    os.close(ours)
    process.wait(60)
    return seen.decode()


def test_a_terminal_gets_bars(api: Scripted, files: Files, tmp_path: Path) -> None:
    """On a terminal stderr shows a bar with status, queue position and pages; stdout holds the results alone."""
    with (tmp_path / "out").open("wb") as out:
        seen = on_a_terminal("ocr", *files("good.png"), *files("slow.png"), "--timeout", 2, url=api.url, stdout=out)

    assert "━" in seen
    assert "in progress, 1/2 pages" in seen
    assert "timed_out" in seen
    assert (tmp_path / "out").read_text().endswith("text of good.png\n")


def test_what_a_page_holds_cannot_steer_the_terminal(phi4: Command, api: Scripted, files: Files) -> None:
    """Control characters are replaced on a terminal, and kept in a file or pipe."""
    (path,) = files("steering.png")

    assert "\N{REPLACEMENT CHARACTER}[2Jred" in on_a_terminal("ocr", path, url=api.url)
    assert phi4("ocr", path).stdout == "\x1b[2Jred\n"


def test_the_table_fits_a_terminal(api: Scripted, phi4: Command, files: Files) -> None:
    """On a terminal the list is a table without tabs."""
    phi4("ocr", *files("good.png"))

    seen = on_a_terminal("jobs", "list", url=api.url)

    assert "job_0" in seen
    assert "\t" not in seen


def test_colours_are_for_terminals(api: Scripted, phi4: Command, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table, a complaint and a finding are coloured there; not in a pipe, nor where NO_COLOR asks for none."""
    calls = [("ocr", *files("failed.pdf")), ("jobs", "list"), ("jobs", "show", "job_9"), ("doctor",)]

    def coloured() -> list[bool]:
        return [bool(re.search(r"\x1b\[(1;)?3\d", on_a_terminal(*call, url=api.url))) for call in calls]

    assert coloured() == [True] * len(calls)
    assert not any("\x1b" in phi4(*call).output for call in calls)
    monkeypatch.setenv("NO_COLOR", "1")
    assert coloured() == [False] * len(calls)
