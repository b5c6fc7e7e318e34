"""What the API counts for Prometheus, and what it reads off the store when asked."""

from __future__ import annotations

import logging
import time
from collections import Counter as Tally
from collections.abc import Iterator

from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from phi4.errors import Phi4Error
from phi4.log import log
from phi4.settings import Settings
from phi4.store import Store

_log = logging.getLogger(__name__)
_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 15, 60)


class _StoreCollector(Collector):
    """Queues, workers, ended jobs, webhooks and Redis' memory, read at each scrape."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        """Read the store; while it is away there are no figures rather than wrong ones, but the one that says so."""
        try:
            yield from [*self._work(), *self._ends(), *self._webhooks(), *self._redis()]
        except Phi4Error:
            yield GaugeMetricFamily("phi4_store_up", "1 while the job store answers", value=0)
            return
        yield GaugeMetricFamily("phi4_store_up", "1 while the job store answers", value=1)

    def _work(self) -> Iterator[Metric]:
        depth = GaugeMetricFamily("phi4_queue_depth", "Units of work waiting", labels=["queue"])
        for queue, count in self._store.work.waiting().items():
            depth.add_metric([queue], count)
        age = GaugeMetricFamily("phi4_queue_age_seconds", "How long the first unit has been waiting", labels=["queue"])
        for queue, seconds in self._store.work.oldest().items():
            age.add_metric([queue], seconds)
        alive = GaugeMetricFamily("phi4_workers", "Workers alive", labels=["engine", "stage"])
        workers = self._store.workers.alive()
        for (engine, stage), count in Tally((w.engine or "none", w.stage) for w in workers).items():
            alive.add_metric([engine, stage], count)
        slots = GaugeMetricFamily("phi4_slots", "Units that all live workers can run at once", labels=["engine"])
        for engine in {w.engine or "none" for w in workers}:
            slots.add_metric([engine], sum(w.slots for w in workers if (w.engine or "none") == engine))
        yield from (depth, age, alive, slots)

    def _ends(self) -> Iterator[Metric]:
        jobs = CounterMetricFamily("phi4_jobs_ended", "Jobs that ended", labels=["type", "status"])
        for (job_type, status), count in self._store.jobs.ended().items():
            jobs.add_metric([job_type, status], count)
        yield jobs

    def _webhooks(self) -> Iterator[Metric]:
        waiting = GaugeMetricFamily("phi4_webhooks_waiting", "Deliveries that are not over", labels=["state"])
        for state, count in self._store.hooks.waiting().items():
            waiting.add_metric([state], count)
        yield waiting

    def _redis(self) -> Iterator[Metric]:
        used, most = self._store.memory()
        yield GaugeMetricFamily("phi4_redis_memory_bytes", "What Redis uses", value=used)
        yield GaugeMetricFamily(
            "phi4_redis_memory_limit_bytes", "What Redis may use: maxmemory, or the RAM", value=most
        )


def install(app: Flask, settings: Settings, store: Store) -> None:
    """Count every request of an application, and serve the figures on their own port (0: nowhere)."""
    registry = CollectorRegistry()
    registry.register(_StoreCollector(store))
    requests = Counter("phi4_http_requests", "Requests answered", ["method", "route", "status"], registry=registry)
    seconds = Histogram("phi4_http_seconds", "Time to answer", ["method", "route"], buckets=_SECONDS, registry=registry)

    @app.before_request
    def _begin() -> None:
        g.began = time.perf_counter()

    @app.after_request
    def _count(response: Response) -> Response:
        # Without a route a method may be any word, and each would be a series of its own.
        method, route = (request.method, request.url_rule.rule) if request.url_rule else ("unknown", "unknown")
        requests.labels(method, route, response.status_code).inc()
        seconds.labels(method, route).observe(time.perf_counter() - g.get("began", time.perf_counter()))
        return response

    if settings.metrics_port:
        try:
            start_http_server(settings.metrics_port, addr=settings.metrics_host, registry=registry)
        except OSError as error:
            hint = "set PHI4_METRICS_PORT"
            log(_log, "no metrics", level=logging.WARNING, port=settings.metrics_port, error=str(error), hint=hint)
