"""The blob store: inputs, prepared parts and results as files under one fsspec URL, a folder per job."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from phi4.bucket import Bucket
from phi4.errors import BlobMissing, BlobTampered
from phi4.folder import NO_ROOM, Folder

__all__ = ["NO_ROOM", "Blobs"]

_CHUNK = 1 << 20


class Blobs:
    """Files by key (`<job id>/<name>`); names are made by the service, never by a caller.

    Everything raises `BlobsUnavailable` when an object store is away.
    """

    def __init__(self, url: str, *, min_free_bytes: int = 0) -> None:
        """Open the store. Raises `UnsuitableBlobs`."""
        protocol, _, path = url.rpartition("://")
        is_local = protocol in ("", "file", "local")
        self._files = Folder(Path(path), min_free_bytes=min_free_bytes) if is_local else Bucket(url)

    def put(self, key: str, data: bytes) -> str:
        """Store `data` under `key` and return its SHA-256; readers see the old file or the whole new one.

        Raises `StorageFull`.
        """
        self._files.write(_path(key), data)
        return hashlib.sha256(data).hexdigest()

    def put_stream(self, key: str, stream: BinaryIO) -> tuple[int, str]:
        """Store a stream; returns its length in bytes and its SHA-256. Raises `StorageFull`."""
        digest, length = hashlib.sha256(), 0
        with self._files.writing(_path(key)) as file:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                length += len(chunk)
                file.write(chunk)
        return length, digest.hexdigest()

    def get(self, key: str, *, sha256: str | None = None) -> bytes:
        """Read a blob whole. Raises `BlobMissing`, and `BlobTampered` when the hash is given and differs."""
        try:
            data = self._files.read(_path(key))
        except FileNotFoundError:
            raise BlobMissing(f"The stored file {key} is gone.") from None
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise BlobTampered(f"The stored file {key} is not the one that was stored.")
        return data

    def exists(self, key: str) -> bool:
        """Tell whether there is a blob under `key`."""
        return self._files.exists(_path(key))

    @contextmanager
    def as_file(self, key: str, *, sha256: str | None = None) -> Iterator[Path]:
        """Give a blob as a local file for the time of the block. Raises `BlobMissing`, `BlobTampered`."""
        with self._files.at_hand(_path(key)) as path:
            if not path.exists():
                raise BlobMissing(f"The stored file {key} is gone.")
            if sha256 is not None and _hash_file(path) != sha256:
                raise BlobTampered(f"The stored file {key} is not the one that was stored.")
            yield path

    def open(self, key: str) -> BinaryIO:
        """Open a copy of a blob, which goes when it is closed. Raises `BlobMissing`."""
        copy = SpooledTemporaryFile(_CHUNK)  # noqa: SIM115  # the caller closes it
        with self.as_file(key) as path, path.open("rb") as stored:
            shutil.copyfileobj(stored, copy)
        copy.seek(0)
        return cast(BinaryIO, copy)

    def delete(self, key: str) -> None:
        """Remove one blob; one that is gone already is fine."""
        self._files.remove(_path(key))

    def delete_folder(self, folder: str) -> None:
        """Remove every blob of a job, or of a part of its name; a folder that is gone already is fine."""
        self._files.remove_folder(_path(folder))

    def folders(self) -> Iterator[tuple[str, float]]:
        """List the jobs' folders with the time of their last change (Unix seconds; 0 when it is not known)."""
        return self._files.folders()

    def check_room(self) -> None:
        """Raise `StorageFull` when the local disk has less room left than it must keep."""
        self._files.check_room()


def _path(key: str) -> str:
    """Spread the jobs' folders over shards: one folder of all jobs would be slow to list."""
    folder = key.split("/", 1)[0]
    if not folder:
        raise ValueError("a blob has a name")
    return f"{folder[-2:]}/{key}"


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
