"""The blob store: inputs, prepared parts and results as files under one fsspec URL, a folder per job."""

from __future__ import annotations

import errno
import hashlib
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import fsspec

from phi4.errors import BlobMissing, BlobTampered, StorageFull

_CHUNK = 1 << 20
#: What a disk, a quota or a limit on the size of files says when there is no room.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Blobs:
    """Files by key (`<job id>/<name>`); names are made by the service, never by a caller."""

    def __init__(self, url: str, *, min_free_bytes: int = 0) -> None:
        self._fs, root = fsspec.core.url_to_fs(url)
        self._root = root.rstrip("/")
        self._local = "file" in (self._fs.protocol if isinstance(self._fs.protocol, tuple) else (self._fs.protocol,))
        self._min_free = min_free_bytes
        if self._local:
            Path(self._root).mkdir(parents=True, exist_ok=True)

    def put(self, key: str, data: bytes) -> str:
        """Store `data` under `key` and return its SHA-256; readers see the old file or the whole new one.

        Raises `StorageFull`.
        """
        with self._writing(key) as file:
            file.write(data)
        return hashlib.sha256(data).hexdigest()

    def put_stream(self, key: str, stream: BinaryIO) -> tuple[int, str]:
        """Store a stream; returns its length in bytes and its SHA-256. Raises `StorageFull`."""
        digest, length = hashlib.sha256(), 0
        with self._writing(key) as file:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                length += len(chunk)
                file.write(chunk)
        return length, digest.hexdigest()

    def get(self, key: str, *, sha256: str | None = None) -> bytes:
        """Read a blob whole. Raises `BlobMissing`, and `BlobTampered` when the hash is given and differs."""
        try:
            data: bytes = self._fs.cat_file(self._path(key))
        except FileNotFoundError:
            raise BlobMissing(f"The stored file {key} is gone.") from None
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise BlobTampered(f"The stored file {key} is not the one that was stored.")
        return data

    def exists(self, key: str) -> bool:
        """Tell whether there is a blob under `key`."""
        return bool(self._fs.exists(self._path(key)))

    @contextmanager
    def as_file(self, key: str, *, sha256: str | None = None) -> Iterator[Path]:
        """Give a blob as a local file for the time of the block. Raises `BlobMissing`, `BlobTampered`."""
        with self._at_hand(key) as path:
            if not path.exists():
                raise BlobMissing(f"The stored file {key} is gone.")
            if sha256 is not None and _hash_file(path) != sha256:
                raise BlobTampered(f"The stored file {key} is not the one that was stored.")
            yield path

    @contextmanager
    def _at_hand(self, key: str) -> Iterator[Path]:
        """A blob's own path, or that of a copy; either may lead nowhere."""
        if self._local:
            yield Path(self._path(key))
            return
        with TemporaryDirectory(prefix="phi4-") as folder:
            path = Path(folder) / "blob"
            with suppress(FileNotFoundError):
                self._fs.get_file(self._path(key), str(path))
            yield path

    def delete(self, key: str) -> None:
        """Remove one blob; one that is gone already is fine."""
        try:
            self._fs.rm_file(self._path(key))
        except FileNotFoundError:
            return

    def delete_folder(self, folder: str) -> None:
        """Remove every blob of a job, or of a part of its name; a folder that is gone already is fine."""
        if self._local:
            shutil.rmtree(self._path(folder), ignore_errors=True)
            return
        try:
            self._fs.rm(self._path(folder), recursive=True)
        except FileNotFoundError:
            return

    def folders(self) -> Iterator[tuple[str, float]]:
        """List the jobs' folders with the time of their last change (Unix seconds)."""
        shards = self._fs.ls(self._root, detail=True) if self._fs.exists(self._root) else []
        for shard in shards:
            for entry in self._fs.ls(shard["name"], detail=True):
                yield Path(entry["name"]).name, float(entry.get("mtime") or 0.0)

    def check_room(self) -> None:
        """Raise `StorageFull` when the local disk has less room left than it must keep."""
        if self._local and shutil.disk_usage(self._root).free < self._min_free:
            raise StorageFull

    def _path(self, key: str) -> str:
        folder = key.split("/", 1)[0]
        return f"{self._root}/{folder[-2:]}/{key}"

    @contextmanager
    def _writing(self, key: str) -> Iterator[BinaryIO]:
        path = self._path(key)
        try:
            if self._local:
                with _replacing(Path(path)) as file:
                    yield file
            else:
                with self._remote(path) as file:
                    yield file
        except OSError as error:
            if error.errno in NO_ROOM:
                raise StorageFull from None
            raise

    @contextmanager
    def _remote(self, path: str) -> Iterator[BinaryIO]:
        """An object store shows a file when it is closed; one that broke off is taken away again."""
        try:
            with self._fs.open(path, "wb") as file:
                yield file
        except BaseException:
            if self._fs.exists(path):
                self._fs.rm_file(path)
            raise


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


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
