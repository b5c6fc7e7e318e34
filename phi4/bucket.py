"""Files behind an fsspec URL that is no local folder: an object store such as S3, reached over a network."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import fsspec

from phi4.errors import BlobsUnavailable, Phi4Error, UnsuitableBlobs

#: Uploads larger than this go up in parts of this size, one at a time; S3 takes 10 000 of them.
_PART_BYTES = 32 << 20
#: What the file systems are told beside their URL; credentials and endpoint come from their own standard variables.
_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        # One thread of this process speaks for all others, so the pool is for every thread of a worker.
        "config_kwargs": {
            "connect_timeout": 5,
            "read_timeout": 10,
            "retries": {"mode": "standard", "max_attempts": 3},
            "max_pool_connections": 64,
        },
    }
}


class Bucket:
    """Files by path. Raises `BlobsUnavailable` when the store is away or refuses, `FileNotFoundError` as files do."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._made_in = os.getpid()
        self._made, self._root = _open(url)

    @contextmanager
    def writing(self, path: str) -> Iterator[BinaryIO]:
        """Give a file to write; it shows whole when the block ends, and not at all when it breaks off."""
        with self._named():
            file = self._fs.open(self._at(path), "wb", block_size=_PART_BYTES)
        try:
            yield _Named(self, file)  # type: ignore[misc]  # only `write` is used
            with self._named(writes=True):
                file.close()
        except BaseException:
            self._take_away(path, file)
            raise

    def write(self, path: str, data: bytes) -> None:
        """Store a file whole, in one request when it is small."""
        with self._named(writes=True):
            self._fs.pipe_file(self._at(path), data)

    def read(self, path: str) -> bytes:
        """Read a file whole."""
        with self._named():
            return bytes(self._fs.cat_file(self._at(path)))

    def exists(self, path: str) -> bool:
        """Tell whether there is such a file."""
        with self._named():
            return bool(self._fs.exists(self._at(path)))

    @contextmanager
    def at_hand(self, path: str) -> Iterator[Path]:
        """Give the path of a copy; it leads nowhere when the file is gone."""
        with TemporaryDirectory(prefix="phi4-") as folder:
            copy = Path(folder) / "blob"
            with self._named(), suppress(FileNotFoundError):
                self._fs.get_file(self._at(path), str(copy))
            yield copy

    def remove(self, path: str) -> None:
        """Remove a file; one that is gone already is fine."""
        with self._named(), suppress(FileNotFoundError):
            self._fs.rm_file(self._at(path))

    def remove_folder(self, path: str) -> None:
        """Remove all files below a path; none is fine."""
        with self._named(), suppress(FileNotFoundError):
            self._fs.rm(self._at(path), recursive=True)

    def folders(self) -> Iterator[tuple[str, float]]:
        """List the folders two levels down; object stores know no time of their last change."""
        for shard in self._listed(self._root):
            for entry in self._listed(shard["name"]):
                yield Path(entry["name"]).name, float(entry.get("mtime") or 0.0)

    def check_room(self) -> None:
        """An object store says that it is full only when it is written to."""

    @property
    def _fs(self) -> Any:
        # The thread that speaks with the store does not live on in a fork, and neither do its connections.
        if self._made_in != os.getpid():
            with self._lock:
                self._made, self._root = _open(self._url)
                self._made_in = os.getpid()
        return self._made

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _listed(self, path: str) -> list[dict[str, Any]]:
        with self._named(), suppress(FileNotFoundError):
            return list(self._fs.ls(path, detail=True))
        return []

    def _take_away(self, path: str, file: Any) -> None:
        """Give up a file that is half written, and whatever of it shows."""
        with suppress(Exception):
            file.discard()
            file.closed = True  # else it would be sent when it is collected
        with suppress(Phi4Error):
            self.remove(path)

    @contextmanager
    def _named(self, *, writes: bool = False) -> Iterator[None]:
        """Speak of the store's failures in this project's errors; each implementation has its own."""
        try:
            yield
        except Phi4Error:
            raise
        except FileNotFoundError as error:
            if writes:
                raise BlobsUnavailable("The blob store has no such bucket.") from error
            raise
        except Exception as error:
            said = "refuses this service" if isinstance(error, PermissionError) else "does not answer"
            raise BlobsUnavailable(f"The blob store {said}: {type(error).__name__}.") from error


class _Named:
    """A file whose failures have this project's names."""

    def __init__(self, bucket: Bucket, file: BinaryIO) -> None:
        self._bucket = bucket
        self._file = file

    def write(self, data: bytes) -> int:
        """Add to the file."""
        with self._bucket._named(writes=True):
            return self._file.write(data)


def _open(url: str) -> tuple[Any, str]:
    protocol = url.partition("://")[0]
    options = _OPTIONS.get(protocol, {})
    try:
        # Others write there too, so nothing that was listed is remembered.
        fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True, **options)
    except ImportError:
        extra = ' (pip install "phi4-service[s3]")' if protocol == "s3" else ""
        raise UnsuitableBlobs(f"PHI4_BLOBS: what reads {protocol}:// is not installed{extra}.") from None
    except ValueError as error:
        raise UnsuitableBlobs(f"PHI4_BLOBS: {error}") from None
    root = root.rstrip("/")
    if protocol == "s3":
        if not root:
            raise UnsuitableBlobs("PHI4_BLOBS: name a bucket, such as s3://bucket/path.")
        fs.retries = 1  # its own come on top of those of the library below, and would take minutes
    return fs, root
