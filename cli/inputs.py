"""Which files the user means: files as they are, folders with all in them, patterns, and `-` for what is piped in."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from phi4.media_type import HEAD_BYTES, KINDS, Kind, sniff
from phi4.params import JobType

STDIN = Path("/dev/stdin")
_ENDINGS: dict[Kind, frozenset[str]] = {
    "image": frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}),
    "pdf": frozenset({".pdf"}),
    "audio": frozenset({".aac", ".flac", ".m4a", ".mp3", ".mp4", ".oga", ".ogg", ".opus", ".wav", ".webm"}),
}


class NothingFound(Exception):
    """A folder or a pattern has no file of the kind that is needed."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file; `place` is where it lies below the folder that the user named, without its suffix."""

    path: Path
    name: str
    place: Path


@cache
def piped(path: Path) -> bytes:
    """Read what has no size yet, such as a pipe: once, because a second reader finds it empty."""
    return path.read_bytes()


def found(named: Sequence[Path], job_type: JobType) -> list[Source]:
    """Find what was named, in order. Raises `NothingFound`."""
    return [source for path in named for source in _found(path, job_type)]


def _found(path: Path, job_type: JobType) -> Iterator[Source]:
    if str(path) == "-":
        yield Source(STDIN, "stdin", Path("stdin"))
    elif path.is_dir():
        yield from _of_folder(path, job_type)
    elif path.exists() or not glob.has_magic(str(path)):
        yield Source(path, str(path), Path(path.stem))  # one that is not there is told where it would be read
    else:
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True)) if Path(match).is_file()]
        if not matches:
            raise NothingFound(f"{path} matches no file.")
        yield from (Source(match, str(match), Path(match.stem)) for match in matches)


def _of_folder(folder: Path, job_type: JobType) -> Iterator[Source]:
    """All files in a folder whose first bytes or names say that they can be worked on; hidden ones are left out."""
    inside = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    seen = [path for path in inside if not any(part.startswith(".") for part in path.parts)]
    fitting = [path for path in seen if _fits(folder / path, job_type)]
    if not fitting:
        raise NothingFound(f"{folder} has no file that can be worked on ({', '.join(sorted(KINDS[job_type]))}).")
    yield from (Source(folder / path, str(folder / path), path.with_suffix("")) for path in fitting)


def _fits(path: Path, job_type: JobType) -> bool:
    """Whether it can be worked on, or whoever named it thinks so: a damaged one is told when it was sent."""
    if any(path.suffix.lower() in _ENDINGS[kind] for kind in KINDS[job_type]):
        return True
    try:
        with path.open("rb") as file:
            media = sniff(file.read(HEAD_BYTES))
    except OSError:
        return True  # told when it is to be sent
    return media is not None and media.kind in KINDS[job_type]
