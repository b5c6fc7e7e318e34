"""The `phi4` command with many files: folders, patterns, what is piped in, and runs that go on where they stopped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import png
from tests.scripted_api import Command, Scripted, running, started


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
def scans(tmp_path: Path) -> Path:
    """A folder of pictures, with a recording, a note and hidden files beside them."""
    folder = tmp_path / "scans"
    contents = {
        "b.png": png(),
        "a.jpg": png(),
        "deep/er/b.png": png(),
        "talk.wav": b"RIFF\0\0\0\0WAVEfmt ",
        "note.txt": b"words",
        ".hidden.png": png(),
        ".git/c.png": png(),
    }
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def written(folder: Path) -> list[str]:
    """All files in a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_folder_is_read_with_all_that_lies_in_it(phi4: Command, api: Scripted, scans: Path, tmp_path: Path) -> None:
    """Files whose first bytes fit, not hidden ones; results lie as the inputs do; the last line counts."""
    out = tmp_path / "text"

    result = phi4("ocr", scans, "--out", out)

    assert (result.exit_code, len(api.submissions)) == (0, 3)
    assert written(out) == ["a.md", "b.md", "deep/er/b.md"]
    assert result.stderr.splitlines()[-1].endswith("3 done")


def test_a_file_that_is_not_what_its_name_says_is_told(phi4: Command, api: Scripted, scans: Path) -> None:
    """An empty one or other bytes: the service says what is wrong with it, as when it is named by itself."""
    (scans / "refused-1.PNG").touch()
    (scans / "refused-2.pdf").write_text("words")
    (scans / "empty.mp3").touch()

    result = phi4("ocr", scans)

    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "3 done, 2 with errors"
    assert [f"{scans / name}: " in result.stderr for name in ("refused-1.PNG", "refused-2.pdf")] == [True, True]
    assert len(api.submissions) == 5


def test_recordings_of_a_folder_are_found_by_what_they_are(phi4: Command, api: Scripted, scans: Path) -> None:
    """A command takes its own kind of file."""
    assert phi4("transcribe", scans).exit_code == 0
    assert [sent["type"] for sent in api.submissions] == ["asr"]


def test_a_pattern_that_no_shell_expanded_is_expanded(phi4: Command, api: Scripted, scans: Path) -> None:
    """Quoted, or where a shell knows none; `**` goes into folders."""
    assert phi4("ocr", f"{scans}/**/b.png").exit_code == 0
    assert len(api.submissions) == 2


def test_a_second_run_does_what_is_left(phi4: Command, api: Scripted, scans: Path, tmp_path: Path) -> None:
    """A result that is not older than its input is left alone; `--again` does all."""
    out = tmp_path / "text"
    phi4("ocr", scans, "--out", out)
    (out / "b.md").unlink()
    newer = (out / "a.md").stat().st_mtime + 60
    os.utime(scans / "a.jpg", (newer, newer))
    api.submissions.clear()

    second = phi4("ocr", scans, "--out", out)

    assert (second.exit_code, len(api.submissions)) == (0, 2)
    assert second.stderr.splitlines()[-1].endswith("2 done, 1 done before (--again does all)")
    assert written(out) == ["a.md", "b.md", "deep/er/b.md"]
    phi4("ocr", scans, "--out", out, "--again")
    assert len(api.submissions) == 5


def test_a_file_that_comes_in_between_keeps_nobody_elses_result(
    phi4: Command, api: Scripted, scans: Path, tmp_path: Path
) -> None:
    """Names that differ by their ending alone keep it, so that each result stays its input's."""
    out = tmp_path / "text"
    (scans / "b.gif").write_bytes(png())
    phi4("ocr", scans, "--out", out)
    first = written(out)
    (scans / "b.bmp").write_bytes((scans / "b.png").read_bytes())
    os.utime(scans / "b.bmp", (1, 1))
    api.submissions.clear()

    phi4("ocr", scans, "--out", out)

    assert first == ["a.md", "b.gif.md", "b.png.md", "deep/er/b.md"]
    assert written(out) == sorted([*first, "b.bmp.md"])
    assert len(api.submissions) == 1


def test_a_single_file_that_was_done_before_is_told(phi4: Command, scans: Path, tmp_path: Path) -> None:
    """Another file of that name may be meant."""
    phi4("ocr", scans / "a.jpg", "--out", tmp_path / "text")

    again = phi4("ocr", scans / "a.jpg", "--out", tmp_path / "text")

    assert again.stderr.splitlines() == ["1 done before (--again does all)"]


def test_one_bad_file_does_not_end_the_run(phi4: Command, scans: Path, tmp_path: Path) -> None:
    """The others are written; the exit code and the last line tell."""
    out = tmp_path / "text"

    result = phi4("ocr", scans, tmp_path / "missing.png", "--out", out)

    assert result.exit_code == 1
    assert written(out) == ["a.md", "b.md", "deep/er/b.md"]
    assert result.stderr.splitlines()[-1].endswith("3 done, 1 with errors")


def test_what_is_piped_in_is_read(api: Scripted, tmp_path: Path) -> None:
    """`-` is the standard input."""
    picture = tmp_path / "a.png"
    picture.write_bytes(png())
    with picture.open("rb") as stdin:
        process = started("ocr", "-", url=api.url, stdin=stdin, stdout=-1, stderr=-1)
        out, _ = process.communicate(timeout=60)

    assert process.returncode == 0
    assert out
    assert api.submissions[0]["contents"] == [png()]


@pytest.mark.parametrize("named", ["empty", "none*.png"])
def test_nothing_to_do_is_a_wrong_call(phi4: Command, tmp_path: Path, named: str) -> None:
    """Exit code 2, before any service is asked."""
    (tmp_path / "empty").mkdir()

    assert phi4("ocr", tmp_path / named).exit_code == 2


def test_no_more_than_asked_for_are_under_way(phi4: Command, api: Scripted, scans: Path) -> None:
    """`--at-once` bounds what waits or runs."""
    assert phi4("ocr", scans, "--at-once", "1").exit_code == 0
    assert len(api.submissions) == 3
