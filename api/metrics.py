"""What the API counts for Prometheus, and what it reads off the store when asked."""

from __future__ import annotations

import logging
import time
from collections import Counter as Tally
from collections.abc import Iterator

from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from phi4.errors import Phi4Error
from phi4.log import log
from phi4.settings import Settings
from phi4.store import Store

_log = logging.getLogger(__name__)
_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 15, 60)


class _StoreCollector(Collector):
    """Queue depth, workers and ended jobs, read at each scrape."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        """Read the store; while it is away there are no figures rather than wrong ones."""
        try:
            waiting, workers, ended = self._store.work.waiting(), self._store.workers.alive(), self._store.jobs.ended()
        except Phi4Error:
            return
        depth = GaugeMetricFamily("phi4_queue_depth", "Units of work waiting", labels=["queue"])
        for queue, count in waiting.items():
            depth.add_metric([queue], count)
        alive = GaugeMetricFamily("phi4_workers", "Workers alive", labels=["engine", "stage"])
        for (engine, stage), count in Tally((w.engine or "none", w.stage) for w in workers).items():
            alive.add_metric([engine, stage], count)
        jobs = GaugeMetricFamily("phi4_jobs_ended", "Jobs that ended", labels=["type", "status"])
        for (job_type, status), count in ended.items():
            jobs.add_metric([job_type, status], count)
        yield from (depth, alive, jobs)


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
