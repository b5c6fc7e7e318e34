"""Wakes workers through Celery: a message is only a ticket that says "there is work in this queue".

The truth about what waits is in the store, so a ticket that is lost, doubled or late costs nothing: a worker that finds
no work goes on, and the reaper sends tickets where they are missing.
"""

from __future__ import annotations

from celery import Celery
from kombu.entity import Queue
from kombu.exceptions import OperationalError

from phi4.job import QUEUES

TASK = "phi4.work"


def celery_app(redis_url: str) -> Celery:
    """Make the Celery application that API and workers share: threads, late acknowledgement, no results."""
    app = Celery("phi4", broker=redis_url, set_as_current=False)
    app.conf.update(
        task_queues=[Queue(name) for name in QUEUES],  # type: ignore[no-untyped-call]
        task_default_queue="prepare",
        task_create_missing_queues=False,
        task_serializer="json",
        accept_content=["json"],
        result_backend=None,
        result_backend_thread_safe=True,  # else each thread looks for one in every installed package: 30 ms
        task_ignore_result=True,
        task_acks_late=True,  # a worker holds no more tickets than it has threads, so none waits behind a long one
        worker_prefetch_multiplier=1,
        worker_pool="threads",
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            # No record of tickets in use: they can be lost, and restoring them when Redis was restarted ended the
            # worker, engine and all (kombu 5.7.0: AttributeError in Connection.close).
            "ack_emulation": False,
            "priority_steps": [0],
            "queue_order_strategy": "priority",  # as they are listed: high before normal before low
            "health_check_interval": 15,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "max_connections": 128,
        },
    )
    return app


class Tickets:
    """Sends tickets."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def wake(self, queue: str, count: int = 1) -> None:
        """Send `count` tickets to a queue; '' is no queue. A broker that is away is left to the reaper."""
        if not queue:
            return
        try:
            for _ in range(count):
                self._app.send_task(TASK, args=[queue], queue=queue, retry=False, ignore_result=True)
        except (OperationalError, OSError):
            return

    def missing(self, queue: str, waiting: int) -> int:
        """Count the tickets a queue lacks for `waiting` units."""
        with self._app.connection_for_read() as connection:
            try:
                present = int(connection.default_channel.queue_declare(queue, passive=True).message_count)
            except connection.channel_errors:  # on Redis, an empty queue does not exist
                present = 0
        return max(0, waiting - present)
