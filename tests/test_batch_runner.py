"""Batches end, whatever goes wrong with them: lines that the service fails on, and keys that are revoked."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from api.openai import batch_lines
from api.openai.batch_runner import BatchRunner
from api.services import Services
from phi4.job import QUEUES
from phi4.settings import load
from phi4.store import Batch, Store, WorkerInfo
from tests.keyed_app import keyed, url_of
from tests.making_jobs import raw

CHAT = "/v1/chat/completions"


@pytest.fixture
def runner(store: Store, tmp_path: Path) -> BatchRunner:
    """What works on batches; each round is a call."""
    settings = load(redis_url=url_of(store), data_dir=tmp_path, metrics_port=0, min_free_disk_mb=0)
    return BatchRunner(Services.build(settings, threading.Event()))


def begun(store: Store, tmp_path: Path, lines: int = 2) -> Batch:
    """Make a batch through the API, with a key of its owner's."""
    client = keyed(store, tmp_path, acme={}).client("acme")
    asked = {"model": "phi-4-multimodal", "messages": [{"role": "user", "content": "hi"}]}
    text = "\n".join(
        json.dumps({"custom_id": str(n), "method": "POST", "url": CHAT, "body": asked}) for n in range(lines)
    )
    file = client.post("/v1/files", data={"purpose": "batch", "file": (io.BytesIO(text.encode()), "lines.jsonl")})
    wanted = {"input_file_id": file.get_json()["id"], "endpoint": CHAT, "completion_window": "24h"}
    made = client.post("/v1/batches", json=wanted).get_json()
    return store.batches.get(made["id"], "acme")


def rounds(runner: BatchRunner, most: int = 10) -> None:
    """Go round until no batch is open."""
    for _ in range(most):
        if not runner._round():
            return


def test_a_line_that_the_service_fails_on_is_refused(
    store: Store, tmp_path: Path, runner: BatchRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are answered, and the batch ends."""

    def broken(*_: Any) -> None:
        raise RuntimeError("a bug")

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

    def broken(batch: Batch) -> None:
        tried.append(batch.id)
        raise RuntimeError("a bug")

    batch = begun(store, tmp_path)
    monkeypatch.setattr(runner, "_work", broken)

    rounds(runner)

    batch = store.batches.get(batch.id, "acme")
    assert (batch.status, [error["code"] for error in json.loads(batch.errors)]) == ("failed", ["internal_error"])
    assert len(tried) == 3
    assert not store.batches.open()


def test_a_batch_ends_with_its_key(store: Store, tmp_path: Path, runner: BatchRunner) -> None:
    """One that is revoked makes no more jobs; those that ran are cancelled."""
    store.workers.announce(WorkerInfo("w", tuple(QUEUES), "ready", "e", "m", 8, 0))
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
