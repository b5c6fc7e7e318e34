"""Whether the process lives, whether the service can do work, and what it is busy with."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, jsonify

from api import auth
from api.problems import problem
from api.services import Services
from phi4 import __version__
from phi4.errors import StoreUnavailable


def blueprint(services: Services) -> Blueprint:
    """Make the routes over the services of this process."""
    routes = Blueprint("health", __name__)

    @routes.get("/livez")
    @auth.free
    def livez() -> Response:
        """Answer while the process can answer at all."""
        return jsonify({"status": "ok"})

    @routes.get("/readyz")
    @auth.free
    def readyz() -> Response:
        """Answer 200 when a job sent now would be worked on."""
        try:
            workers = services.store.workers.alive()
        except StoreUnavailable as error:
            return problem(503, error.code, error.message)
        if not any(w.serves_engine for w in workers):
            return problem(503, "no_worker", "No worker whose engine has answered its probe is alive.")
        return jsonify({"status": "ok"})

    @routes.get("/health")
    @auth.free
    def health() -> Response:
        """Tell in a word how things are; who may use the service is also told what waits, who works, and the limits."""
        workers = services.store.workers.alive()
        status = "ok" if any(w.serves_engine for w in workers) else "degraded"
        if not auth.is_known():
            return jsonify({"status": status})
        return jsonify(
            {
                "status": status,
                "version": __version__,
                "queues": services.store.work.waiting(),
                "workers": [asdict(w) for w in workers],
                "ended": ended(services),
                "webhooks": services.store.hooks.outcomes(),
                "limits": limits(services),
            }
        )

    return routes


def ended(services: Services) -> dict[str, dict[str, int]]:
    """Count the jobs that ended, by type and then by status."""
    counts: dict[str, dict[str, int]] = {}
    for (job_type, status), count in services.store.jobs.ended().items():
        counts.setdefault(job_type, {})[status] = count
    return counts


def limits(services: Services) -> dict[str, Any]:
    """List the limits a caller may run into."""
    settings = services.settings
    names = (
        "max_body_mb",
        "max_pixels",
        "max_pages",
        "max_audio_seconds",
        "max_inputs",
        "max_queued_parts",
        "job_window",
        "max_event_streams",
    )
    return {name: getattr(settings, name) for name in names}
