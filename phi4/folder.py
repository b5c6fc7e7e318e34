"""Files in a local folder, each whole or not there at all."""

from __future__ import annotations

import errno
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from phi4.errors import BlobsUnavailable, StorageFull

#: What a disk, a quota or a limit on the size of files says when there is no room.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Folder:
    """Files by path below a folder. Raises `StorageFull`, `FileNotFoundError` as files do."""

    def __init__(self, root: Path, *, min_free_bytes: int = 0) -> None:
        self._root = root
        self._min_free = min_free_bytes
        root.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def writing(self, path: str) -> Iterator[BinaryIO]:
        """Give a file to write; until the block ends, readers see the old one."""
        try:
            with _replacing(self._root / path) as file:
                yield file
        except OSError as error:
            if error.errno in NO_ROOM:
                raise StorageFull from None
            raise

    def write(self, path: str, data: bytes) -> None:
        """Store a file whole."""
        with self.writing(path) as file:
            file.write(data)

    def read(self, path: str) -> bytes:
        """Read a file whole."""
        return (self._root / path).read_bytes()

    def exists(self, path: str) -> bool:
        """Tell whether there is such a file."""
        return (self._root / path).exists()

    @contextmanager
    def at_hand(self, path: str) -> Iterator[Path]:
        """Give the file's own path; it leads nowhere when the file is gone."""
        yield self._root / path

    def remove(self, path: str) -> None:
        """Remove a file; one that is gone already is fine. Raises `BlobsUnavailable`."""
        try:
            (self._root / path).unlink(missing_ok=True)
        except OSError as error:
            raise BlobsUnavailable(f"A file cannot be erased: {error.strerror}.") from error

    def remove_folder(self, path: str) -> None:
        """Remove all files below a path; none is fine."""
        shutil.rmtree(self._root / path, ignore_errors=True)

    def folders(self) -> Iterator[tuple[str, float]]:
        """List the folders two levels down with the time of their last change (Unix seconds)."""
        for folder in self._root.glob("*/*"):
            with suppress(FileNotFoundError):  # somebody may erase it meanwhile
                yield folder.name, folder.stat().st_mtime

    def check_room(self) -> None:
        """Raise `StorageFull` when the disk has less room left than it must keep."""
        if shutil.disk_usage(self._root).free < self._min_free:
            raise StorageFull


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            yield file
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
