"""The routes under /v1/jobs/{id}/deliveries: what became of a job's webhooks, and sending one again."""

from __future__ import annotations

import logging
from typing import Any

from flask import Blueprint, Response, jsonify

from api.auth import caller
from api.jobs import live
from api.services import Services
from phi4.log import log
from phi4.store.hooks import Delivery, Try

_log = logging.getLogger(__name__)


def blueprint(services: Services) -> Blueprint:
    """Make the routes over the services of this process."""
    routes = Blueprint("deliveries", __name__, url_prefix="/v1/jobs/<job_id>/deliveries")

    @routes.get("")
    def show(job_id: str) -> Response:
        """Tell of every event and its tries; of an expired job too, which has a webhook of its own."""
        job = services.store.jobs.get(job_id, caller().sees)
        told = [_view(delivery) for delivery in services.store.hooks.deliveries(job.id)]
        return jsonify({"object": "list", "data": told, "has_more": False})

    @routes.post("/<delivery_id>/replay")
    def replay(job_id: str, delivery_id: str) -> Response:
        """Send an event again, whatever became of it before."""
        job = live(services, job_id, caller().sees)
        delivery = services.store.hooks.replay(job.id, delivery_id)
        services.tickets.wake("webhooks")
        log(_log, "webhook replayed", name=delivery.hook.event, **job.log_context())
        response = jsonify(_view(delivery))
        response.status_code = 202
        return response

    return routes


def _view(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.hook.id,
        "object": "delivery",
        "event": delivery.hook.event,
        "state": delivery.state,
        "created_at": delivery.hook.event_ms // 1000,
        "next_attempt_at": delivery.due_ms // 1000 or None,
        "attempts": [_attempt(tried) for tried in delivery.tries],
    }


def _attempt(tried: Try) -> dict[str, Any]:
    answered = tried.answer.isdigit()
    return {
        "number": tried.number,
        "at": tried.at_ms // 1000,
        "duration_ms": tried.took_ms,
        "status": int(tried.answer) if answered else None,
        "error": None if answered else tried.answer,
    }
