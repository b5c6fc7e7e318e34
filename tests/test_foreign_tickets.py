"""What somebody else puts into a queue: it is never unpickled, runs nothing, and holds up no work."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Producer

from phi4.queue import celery_app
from tests.conftest import Service
from tests.scripted_jobs import prompted

QUEUES = ("prepare", "infer.vision.normal")


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def put(service: Service, body: object, **options: Any) -> None:
    """Send a message into the queues, as anybody can who reaches Redis."""
    app = celery_app(service.redis_url)
    with app.connection_for_write() as connection:
        for queue in QUEUES:
            Producer(connection.default_channel, serializer="json").publish(body, routing_key=queue, **options)


@pytest.fixture(params=["pickled", "pickled and called JSON", "a task of another name", "no task"])
def foreign(request: pytest.FixtureRequest, service: Service, tmp_path: Path) -> Path:
    """A message that a worker must not obey; gives the folder that it would make."""
    folder = tmp_path / "made"
    packed = pickle.dumps(((Trap(folder),), {}, {}))
    headers = {"task": "phi4.work", "id": "1", "lang": "py"}
    match request.param:
        case "pickled":
            binary = {"content_type": "application/x-python-serialize", "content_encoding": "binary"}
            put(service, packed, headers=headers, serializer=None, **binary)
        case "pickled and called JSON":
            put(service, packed, headers=headers, serializer=None, content_type="application/json")
        case "a task of another name":
            put(service, [[str(folder)], {}, {}], headers=headers | {"task": "os.mkdir"})
        case "no task":
            put(service, {"path": str(folder)})
    return folder


def test_nothing_but_a_ticket_is_obeyed(service: Service, foreign: Path) -> None:
    """The workers throw it away and go on, the same ones as before."""
    before = {w["name"] for w in service.http.get("/health").json()["workers"]}

    assert service.ended(prompted(service, "read"))["status"] == "completed"

    with redis.Redis.from_url(service.redis_url) as server:
        assert [server.llen(queue) for queue in QUEUES] == [0, 0]
    assert not foreign.exists()
    assert before <= {w["name"] for w in service.http.get("/health").json()["workers"]}
