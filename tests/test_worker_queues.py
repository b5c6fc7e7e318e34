"""Which queues a worker takes from: what it can serve, and of that what it is told to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from phi4.errors import EngineUnavailable
from phi4.settings import load
from tests.engines import Scripted
from worker.app import Worker
from worker.engines.base import Modality

MakeWorker = Callable[..., Worker]


class OneKind(Scripted):
    """An engine for pictures alone."""

    modalities: frozenset[Modality] = frozenset({"vision"})


@pytest.fixture
def worker(valkey: str, tmp_path: Path) -> MakeWorker:
    """Makes workers that have an engine for pictures alone and do not run."""

    def make(**settings: str) -> Worker:
        made = Worker(load(redis_url=valkey, data_dir=tmp_path, **settings), "infer")
        made.engine = OneKind()
        return made

    return make


@pytest.mark.parametrize(
    ("settings", "queues"),
    [
        ({}, ["infer.vision.high", "infer.vision.normal", "infer.vision.low"]),
        ({"queues": "infer.vision.low,infer.vision.high"}, ["infer.vision.low", "infer.vision.high"]),
        ({"queues": "infer.speech.normal,infer.text.high,infer.vision.normal"}, ["infer.vision.normal"]),
        ({"queues": "prepare,webhooks,infer.vision.normal"}, ["prepare", "infer.vision.normal"]),
        ({"queues": "infer.vision.normal", "serve": "speech"}, []),
    ],
)
def test_only_what_the_engine_can_answer_is_taken(
    worker: MakeWorker, settings: dict[str, str], queues: list[str]
) -> None:
    """PHI4_QUEUES chooses among them: weights with the vision adapter would answer about sound, and be wrong."""
    assert list(worker(**settings).queues) == queues


def test_a_worker_that_could_take_nothing_says_why(worker: MakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it loads a model."""
    monkeypatch.setattr("worker.app.create_engine", lambda _: (OneKind(), "asked for"))
    idle = worker(queues="infer.speech.normal")

    with pytest.raises(EngineUnavailable, match=r"PHI4_QUEUES=infer\.speech\.normal names nothing .* for vision"):
        idle.load_engine()
