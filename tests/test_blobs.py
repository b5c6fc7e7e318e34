"""The blob store keeps files whole or not at all, on a disk and behind any other fsspec URL."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import uuid
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from phi4.blobs import Blobs
from phi4.errors import BlobMissing, BlobTampered, StorageFull
from tests.conftest import ROOT
from tests.s3 import BUCKET, S3

KEY = "job_01abc/input-0"
DATA = bytes(range(256)) * 5_000
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(params=["file", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place for blobs: a local folder, and two that are not local."""
    if request.param == "s3":
        server: S3 = request.getfixturevalue("s3")
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        return f"s3://{BUCKET}/{uuid.uuid4()}"
    return f"file://{tmp_path}/blobs" if request.param == "file" else f"memory://{uuid.uuid4()}/blobs"


@pytest.fixture
def blobs(url: str) -> Blobs:
    """An empty blob store there."""
    return Blobs(url)


class BreaksOff(io.BytesIO):
    """A stream whose sender leaves after the first megabyte."""

    def read(self, size: int | None = -1) -> bytes:
        """Give something once, then fail."""
        if self.tell() > 0:
            raise ConnectionResetError
        return super().read(size)


def files_under(folder: Path) -> list[Path]:
    """All files below a folder, hidden ones too."""
    return [p for p in folder.rglob("*") if p.is_file()]


def test_what_is_put_is_what_one_gets(blobs: Blobs) -> None:
    """Byte by byte, also nothing at all."""
    for data in (DATA, b"", b"\x00"):
        blobs.put(KEY, data)
        assert blobs.get(KEY) == data
        assert blobs.exists(KEY)


def test_a_stream_is_measured_while_it_is_stored(blobs: Blobs) -> None:
    """Its length and its hash are those of what lies there."""
    assert blobs.put_stream(KEY, io.BytesIO(DATA)) == (len(DATA), SHA256)
    assert blobs.get(KEY, sha256=SHA256) == DATA
    assert blobs.put_stream(KEY, io.BytesIO()) == (0, hashlib.sha256().hexdigest())


def test_another_store_at_the_same_url_sees_the_same_blobs(url: str, blobs: Blobs) -> None:
    """The API writes, a worker reads."""
    blobs.put(KEY, DATA)
    assert Blobs(url).get(KEY) == DATA
    assert Blobs(url + "/").get(KEY) == DATA


def test_a_blob_is_a_file_for_the_time_of_a_block(blobs: Blobs) -> None:
    """Readers that want a path get one, checked if the hash is given."""
    blobs.put(KEY, DATA)
    for sha256 in (None, SHA256):
        with blobs.as_file(KEY, sha256=sha256) as path:
            assert path.read_bytes() == DATA
    assert blobs.get(KEY) == DATA


def test_a_blob_that_is_gone_is_missing(blobs: Blobs) -> None:
    """By name, and not as an error of the file system."""
    assert not blobs.exists(KEY)
    with pytest.raises(BlobMissing, match=KEY):
        blobs.get(KEY)
    with pytest.raises(BlobMissing, match=KEY), blobs.as_file(KEY, sha256=SHA256):
        pass


def test_a_blob_that_was_changed_is_noticed(blobs: Blobs) -> None:
    """By its hash, however it is read."""
    blobs.put(KEY, DATA[:-1] + b"!")
    with pytest.raises(BlobTampered, match=KEY):
        blobs.get(KEY, sha256=SHA256)
    with pytest.raises(BlobTampered, match=KEY), blobs.as_file(KEY, sha256=SHA256):
        pass


def test_deleting_a_blob_leaves_the_others(blobs: Blobs) -> None:
    """One that is gone already is fine."""
    blobs.put(KEY, DATA)
    blobs.put("job_01abc/input-1", b"b")
    for _ in range(2):
        blobs.delete(KEY)
    assert (blobs.exists(KEY), blobs.get("job_01abc/input-1")) == (False, b"b")


def test_deleting_a_folder_takes_what_is_in_it_and_no_more(blobs: Blobs) -> None:
    """A part of a job's blobs, then the job's; one that is gone already is fine."""
    for key in (KEY, "job_01abc/parts/0.image", "job_01abc/parts/1.image", "job_01abcd/input-0", "job_00abc/input-0"):
        blobs.put(key, DATA)
    for _ in range(2):
        blobs.delete_folder("job_01abc/parts")
    assert (blobs.exists(KEY), blobs.exists("job_01abc/parts/0.image")) == (True, False)
    for _ in range(2):
        blobs.delete_folder("job_01abc")
    assert [blobs.exists(k) for k in (KEY, "job_01abcd/input-0", "job_00abc/input-0")] == [False, True, True]


def test_the_jobs_that_have_blobs_are_listed(blobs: Blobs) -> None:
    """Each once, whatever lies in its folder."""
    for key in (KEY, "job_01abc/parts/0.image", "job_02xyz/input-0"):
        blobs.put(key, DATA)
    assert sorted(name for name, _ in blobs.folders()) == ["job_01abc", "job_02xyz"]


def test_a_folders_age_is_told(tmp_path: Path) -> None:
    """In Unix seconds, as the disk has it."""
    blobs = Blobs(f"file://{tmp_path}")
    blobs.put(KEY, DATA)
    [(_, changed)] = blobs.folders()
    assert changed == pytest.approx((tmp_path / "bc" / "job_01abc").stat().st_mtime)


def test_a_write_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    """Neither a half file nor what it was written to."""
    blobs = Blobs(f"file://{tmp_path}")
    with pytest.raises(ConnectionResetError):
        blobs.put_stream(KEY, cast(BinaryIO, BreaksOff(DATA)))
    assert not blobs.exists(KEY)
    assert files_under(tmp_path) == []


def test_a_write_that_breaks_off_leaves_what_was_there(tmp_path: Path) -> None:
    """Readers see the old file or the whole new one."""
    blobs = Blobs(f"file://{tmp_path}")
    blobs.put(KEY, b"old")
    with pytest.raises(ConnectionResetError):
        blobs.put_stream(KEY, cast(BinaryIO, BreaksOff(DATA)))
    assert blobs.get(KEY) == b"old"
    assert len(files_under(tmp_path)) == 1


def test_too_little_room_is_noticed_before_anything_is_written(tmp_path: Path) -> None:
    """The room that must stay free is a setting."""
    Blobs(f"file://{tmp_path}", min_free_bytes=1).check_room()
    with pytest.raises(StorageFull):
        Blobs(f"file://{tmp_path}", min_free_bytes=1 << 60).check_room()
    Blobs("memory://x", min_free_bytes=1 << 60).check_room()


ON_A_FULL_DISK = """
import io, pathlib, sys
from phi4.blobs import Blobs
from phi4.errors import StorageFull
blobs = Blobs(f"file://{sys.argv[1]}")
blobs.put("job_a/small", b"old")
for write in (
    lambda: blobs.put("job_a/big", bytes(1 << 20)),
    lambda: blobs.put_stream("job_a/big", io.BytesIO(bytes(3 << 20))),
    lambda: blobs.put("job_a/small", bytes(1 << 20)),
):
    try:
        write()
    except StorageFull:
        print("full", [p.name for p in pathlib.Path(sys.argv[1]).rglob("*") if p.is_file()], blobs.get("job_a/small"))
"""


@pytest.fixture
def full_disk_command(tmp_path: Path) -> list[str]:
    """Runs Python beside a disk of 256 kB that nobody else sees and that goes with the process."""
    mount = 'mount -t tmpfs -o size=256k none "$0" && exec "$@"'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, str(tmp_path)]
    if subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a disk of their own")
    return [*command, sys.executable]


def test_a_full_disk_is_full_storage_and_keeps_what_was_there(full_disk_command: list[str], tmp_path: Path) -> None:
    """`StorageFull`, no half file, and the old content."""
    command = [*full_disk_command, "-c", ON_A_FULL_DISK, str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.stderr == ""
    assert ran.stdout.splitlines() == ["full ['small'] b'old'"] * 3


def test_a_missing_blob_is_no_file(tmp_path: Path) -> None:
    """A file that is gone is said to be gone, also when no hash is checked."""
    blobs = Blobs(f"file://{tmp_path}")

    with pytest.raises(BlobMissing), blobs.as_file("job_00/gone"):
        pass


def test_a_broken_stream_leaves_nothing_on_an_object_store() -> None:
    """What a client did not finish sending is taken away again."""

    class BreaksOff(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise ConnectionError
            return super().read(3)

    blobs = Blobs("memory://breaks-off")
    with pytest.raises(ConnectionError):
        blobs.put_stream("job_00/input-0", BreaksOff(b"abcdef"))

    assert not blobs.exists("job_00/input-0")
    assert list(Blobs("memory://never-used").folders()) == []
