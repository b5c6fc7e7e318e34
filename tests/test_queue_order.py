"""In which order a worker takes from its queues."""

from __future__ import annotations

import pytest
from kombu import Consumer, Queue

from phi4.job import INFER_QUEUES
from phi4.queue import Tickets, celery_app
from phi4.store import Store


@pytest.fixture
def broker(valkey: str) -> str:
    """An empty database of its own."""
    url = valkey.removesuffix("/0") + "/12"
    Store.at(url).client.flushdb()
    return url


def taken(broker: str, waiting: dict[str, int]) -> list[str]:
    """Send so many tickets to each queue, and give the queues in the order in which their tickets come out."""
    app = celery_app(broker)
    tickets = Tickets(app)
    for queue, count in waiting.items():
        tickets.wake(queue, count)
    order: list[str] = []

    def take(_: object, message: object) -> None:
        order.append(message.delivery_info["routing_key"])  # type: ignore[attr-defined]

    with app.connection_for_read() as connection:
        queues = [Queue(name) for name in INFER_QUEUES]  # type: ignore[no-untyped-call]
        with Consumer(connection.default_channel, queues, callbacks=[take], no_ack=True):
            while len(order) < sum(waiting.values()):
                connection.drain_events(timeout=5)
    return order


def test_pages_and_clips_take_turns(broker: str) -> None:
    """However many pages wait, a clip does not wait for all of them."""
    order = taken(broker, {"infer.vision.normal": 6, "infer.speech.normal": 3, "infer.text.normal": 3})

    assert set(order[:3]) == {"infer.vision.normal", "infer.speech.normal", "infer.text.normal"}
    assert order[9:] == ["infer.vision.normal"] * 3


def test_urgent_queues_come_first(broker: str) -> None:
    """Whatever their kind."""
    order = taken(
        broker,
        {"infer.vision.low": 2, "infer.vision.normal": 2, "infer.speech.normal": 2, "infer.text.high": 3},
    )

    assert [queue.rpartition(".")[2] for queue in order] == ["high"] * 3 + ["normal"] * 4 + ["low"] * 2
