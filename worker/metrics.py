"""What a worker counts for Prometheus."""

from __future__ import annotations

import logging

from prometheus_client import Counter, Gauge, Histogram, start_http_server

from phi4.log import log

_log = logging.getLogger(__name__)
_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

PARTS = Counter("phi4_parts_total", "Units of work that ended", ["type", "unit", "outcome"])
PART_SECONDS = Histogram("phi4_part_seconds", "Time a unit of work took", ["type", "unit"], buckets=_SECONDS)
JOB_SECONDS = Histogram(
    "phi4_job_seconds", "Time from a job's POST to its end", ["type", "status"], buckets=(*_SECONDS, 900, 3_600)
)
IN_FLIGHT = Gauge("phi4_in_flight", "Units of work running in this worker")
ENGINE_READY = Gauge("phi4_engine_ready", "1 when the engine has answered its probe", ["engine"])
TOKENS = Counter("phi4_tokens_total", "Tokens the engine read and wrote", ["kind"])
REAPED = Counter("phi4_reaped_total", "Work the reaper dealt with", ["what"])
CACHE = Counter("phi4_result_cache_total", "Jobs that might have been answered by an earlier one", ["outcome"])
for what in ("put_back", "deadline", "expired"):
    REAPED.labels(what)  # from the start, at 0: an increase from nothing is none to Prometheus
WEBHOOKS = Counter("phi4_webhook_tries_total", "Webhook deliveries tried", ["outcome"])


def serve(host: str, port: int) -> None:
    """Serve these figures over HTTP; port 0 serves none, and a taken port costs only the figures."""
    if not port:
        return
    try:
        start_http_server(port, addr=host)
    except OSError as error:
        log(_log, "no metrics", level=logging.WARNING, port=port, error=str(error), hint="set PHI4_METRICS_PORT")
