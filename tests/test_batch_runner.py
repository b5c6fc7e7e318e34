"""Batches end, whatever goes wrong with them: lines that the service fails on, keys and files that go, full queues."""

from __future__ import annotations

import errno
import io
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from api.openai import batch_lines, batch_runner
from api.openai.batch_runner import BatchRunner
from api.services import Services
from phi4.errors import Cancelled, QueueFull
from phi4.job import QUEUES
from phi4.settings import load
from phi4.store import Batch, Store, WorkerInfo
from tests.conftest import eventually
from tests.keyed_app import keyed, url_of
from tests.making_jobs import raw, submit

HOUR_S = 3_600
CHAT = "/v1/chat/completions"


@pytest.fixture
def runner(store: Store, tmp_path: Path) -> BatchRunner:
    """What works on batches; each round is a call."""
    return make_runner(store, tmp_path)


def make_runner(store: Store, tmp_path: Path, **settings: Any) -> BatchRunner:
    """One API process' runner."""
    given = {"redis_url": url_of(store), "data_dir": tmp_path, "metrics_port": 0, "min_free_disk_mb": 0} | settings
    return BatchRunner(Services.build(load(**given), threading.Event()))


@pytest.fixture
def worker(store: Store) -> None:
    """A worker that is there and takes nothing."""
    store.workers.announce(WorkerInfo("w", tuple(QUEUES), "ready", "e", "m", 8, 0))


def begun(store: Store, tmp_path: Path, lines: int = 2, **more: Any) -> Batch:
    """Make a batch through the API, with a key of its owner's."""
    client = keyed(store, tmp_path, acme={}).client("acme")
    asked = {"model": "phi-4-multimodal", "messages": [{"role": "user", "content": "hi"}]}
    text = "\n".join(
        json.dumps({"custom_id": str(n), "method": "POST", "url": CHAT, "body": asked}) for n in range(lines)
    )
    file = client.post("/v1/files", data={"purpose": "batch", "file": (io.BytesIO(text.encode()), "lines.jsonl")})
    wanted = {"input_file_id": file.get_json()["id"], "endpoint": CHAT, "completion_window": "24h", **more}
    made = client.post("/v1/batches", json=wanted).get_json()
    return store.batches.get(made["id"], "acme")


def rounds(runner: BatchRunner, most: int = 10) -> None:
    """Go round until nothing moves."""
    for _ in range(most):
        if not runner._round():
            return


def broken(*_: Any) -> None:
    """Fail as nobody foresaw."""
    raise RuntimeError("a bug")


def end_jobs(store: Store) -> list[str]:
    """End every job of the owner's, and tell the lines that they were."""
    jobs, _ = store.jobs.newest("acme", limit=1_000)
    for job in jobs:
        store.jobs.cancel(job.id, Cancelled())
    return sorted(job.metadata["custom_id"] for job in jobs)


def test_a_line_that_the_service_fails_on_is_refused(
    store: Store, tmp_path: Path, runner: BatchRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are answered, and the batch ends."""
    batch = begun(store, tmp_path)
    monkeypatch.setattr(batch_lines, "submission", broken)

    rounds(runner)

    batch = store.batches.get(batch.id, "acme")
    assert (batch.status, batch.total, batch.failed) == ("completed", 2, 2)
    assert batch.error_file


def test_a_batch_that_the_service_fails_on_again_and_again_fails(
    store: Store, tmp_path: Path, runner: BatchRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is begun anew twice, as a failure may pass; it does not fill the logs for ever."""
    tried = []

    def fails(batch: Batch) -> None:
        tried.append(batch.id)
        raise RuntimeError("a bug")

    batch = begun(store, tmp_path)
    monkeypatch.setattr(runner, "_work", fails)

    rounds(runner)

    batch = store.batches.get(batch.id, "acme")
    assert (batch.status, [error["code"] for error in json.loads(batch.errors)]) == ("failed", ["internal_error"])
    assert len(tried) == 3
    assert not store.batches.open()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOSPC])
@pytest.mark.parametrize("where", ["as_file", "submission"])
def test_a_process_that_has_run_out_blames_no_batch(
    store: Store, tmp_path: Path, runner: BatchRunner, monkeypatch: pytest.MonkeyPatch, where: str, number: int
) -> None:
    """Neither the batch fails nor a line of it: they wait until there are file descriptors, or room, again."""

    def has_run_out(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    batch = begun(store, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(batch_runner, "_REST_S", 0.0)
        patch.setattr(batch_lines if where == "submission" else runner._services.blobs, where, has_run_out)
        for _ in range(5):
            runner._round()
    waiting = store.batches.get(batch.id, "acme")
    monkeypatch.setattr(batch_lines, "submission", broken)
    rounds(runner)

    assert (waiting.is_over, waiting.failed) == (False, 0)
    assert store.batches.get(batch.id, "acme").status == "completed"


@pytest.mark.usefixtures("worker")
def test_an_open_batch_holds_no_file_open(
    store: Store, tmp_path: Path, runner: BatchRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many of them would take every descriptor of the process; its lines are read on where they were left."""
    monkeypatch.setattr(batch_lines, "_READ_BYTES", 1_000)
    begun(store, tmp_path, lines=200)

    runner._round()
    links = [Path(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
    held = [link.readlink() for link in links if link.is_symlink()]
    first = end_jobs(store)
    rounds(runner)

    assert [path for path in held if path.is_relative_to(tmp_path)] == []
    assert first == sorted(str(n) for n in range(128))
    assert end_jobs(store) == sorted(str(n) for n in range(200))


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("how", ["erased", "expired"])
def test_a_batch_outlives_its_input_file(store: Store, tmp_path: Path, runner: BatchRunner, how: str) -> None:
    """It ends with what was done; the bytes go with the last batch that reads them."""
    batch = begun(store, tmp_path)
    runner._round()
    if how == "erased":
        client = keyed(store, tmp_path, acme={}).client("acme")
        assert client.delete(f"/v1/files/{batch.input_file}").status_code == 200
        assert client.get(f"/v1/files/{batch.input_file}/content").status_code == 404
    else:
        raw(store).delete(f"phi4:file:{batch.input_file}")
    end_jobs(store)

    rounds(runner)

    batch = store.batches.get(batch.id, "acme")
    assert (batch.status, batch.errors, batch.failed) == ("completed", "", 2)
    assert store.files.get(batch.error_file, "acme").bytes
    assert not runner._services.blobs.exists(f"{batch.input_file}/content")


def test_an_output_file_is_kept_from_when_it_was_made(
    store: Store, tmp_path: Path, runner: BatchRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `output_expires_after` says: a batch that took longer than that would else end without files."""
    batch = begun(store, tmp_path, output_expires_after={"anchor": "created_at", "seconds": HOUR_S})
    store.batches.update(batch, created_ms=batch.created_ms - 2 * HOUR_S * 1000)
    monkeypatch.setattr(batch_lines, "submission", broken)

    rounds(runner)

    file = store.files.get(store.batches.get(batch.id, "acme").error_file, "acme")
    assert file.expires_ms == file.created_ms + HOUR_S * 1000
    assert file.created_ms >= batch.created_ms


def test_files_that_are_written_again_are_there_once(
    store: Store, tmp_path: Path, runner: BatchRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ends after it wrote them and before it noted them leaves no second ones."""
    batch = begun(store, tmp_path)
    monkeypatch.setattr(batch_lines, "submission", broken)
    with monkeypatch.context() as patch:
        patch.setattr(runner._output, "end_of", broken)
        runner._round()
    first = [file.id for file in store.files.newest("acme") if file.purpose == "batch_output"]

    rounds(runner)

    files = [file.id for file in store.files.newest("acme") if file.purpose == "batch_output"]
    assert first == files == [store.batches.get(batch.id, "acme").error_file]


@pytest.mark.usefixtures("worker")
def test_nothing_is_stored_for_a_queue_that_is_full(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch waits, and goes on when there is room."""
    runner = make_runner(store, tmp_path, max_queued_parts=1)
    job = submit(store)
    begun(store, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(runner._services.submit, "make", broken)
        assert not any(runner._round() for _ in range(3))
    store.jobs.cancel(job.id, Cancelled())

    assert runner._round()
    assert end_jobs(store) == ["0"]


def test_a_line_that_has_to_wait_is_not_tried_at_once(
    store: Store, tmp_path: Path, runner: BatchRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try stores its inputs."""
    tried = []

    def full(*_: Any, **__: Any) -> None:
        tried.append(time.monotonic())
        raise QueueFull

    def is_tried_again() -> bool:
        runner._round()
        return len(tried) > 1

    begun(store, tmp_path)
    monkeypatch.setattr(runner._services.submit, "make", full)

    eventually(is_tried_again, what="another try")

    assert tried[1] - tried[0] >= batch_runner._REST_S


@pytest.mark.usefixtures("worker")
def test_a_round_in_which_nothing_moved_is_told_as_idle(store: Store, tmp_path: Path, runner: BatchRunner) -> None:
    """The next one then comes later."""
    begun(store, tmp_path)

    assert [runner._round() for _ in range(3)] == [True, False, False]


@pytest.mark.usefixtures("worker")
def test_a_batch_ends_with_its_key(store: Store, tmp_path: Path, runner: BatchRunner) -> None:
    """One that is revoked makes no more jobs; those that ran are cancelled."""
    batch = begun(store, tmp_path)
    runner._round()
    jobs, _ = store.jobs.newest("acme", limit=10)
    store.access.revoke(batch.api_key)

    rounds(runner)

    assert len(jobs) == 2
    assert store.batches.get(batch.id, "acme").status == "cancelled"
    assert store.jobs.newest("acme", limit=10) == ([], False), "its jobs go with it"


def test_a_batch_goes_off_the_list_with_its_record(store: Store, tmp_path: Path) -> None:
    """A list would else grow by every batch ever made, and be read whole each time."""
    kept, gone = begun(store, tmp_path), begun(store, tmp_path)
    raw(store).delete(f"phi4:batch:{gone.id}")

    assert [batch.id for batch in store.batches.newest("acme")] == [kept.id]
    assert raw(store).zrange("phi4:batches:acme", 0, -1) == [kept.id]
