"""The API's composition root: builds the services once and hangs the routes on one Flask application."""

from __future__ import annotations

import re
import threading

from flask import Flask, Response, g, request

from api import docs, events, health, jobs, metrics, mistral, openai, problems, slow_clients
from api.openai import errors as openai_errors
from api.services import Services
from phi4.job import new_id
from phi4.settings import Settings

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
#: Form fields beside the files; JSON in `params` may be long.
_MAX_FORM_BYTES = 4 << 20
#: Where errors are told in the shape of another API.
_SHAPES = dict.fromkeys(openai.PATHS, openai_errors.shape) | dict.fromkeys(mistral.PATHS, mistral.shape)


def create_app(settings: Settings, closing: threading.Event | None = None) -> Flask:
    """Make the application; `closing` ends its event streams. Raises `StoreUnavailable`, `UnsuitableRedis`."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_mb << 20
    app.config["MAX_FORM_MEMORY_SIZE"] = _MAX_FORM_BYTES
    app.json.sort_keys = False  # type: ignore[attr-defined]  # the default provider has it
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    services = Services.build(settings, closing or threading.Event())
    problems.install(app, _SHAPES)
    _name_requests(app)
    slow_clients.install(app)
    metrics.install(app, settings, services.store)
    for room in (jobs, events, openai, mistral, health, docs):
        app.register_blueprint(room.blueprint(services))
    return app


def _name_requests(app: Flask) -> None:
    """Give every request an id, the caller's own when it is harmless, and say it in the answer."""

    @app.before_request
    def _take() -> None:
        given = request.headers.get("X-Request-Id", "")
        g.request_id = given if _REQUEST_ID.fullmatch(given) else new_id("req")

    @app.after_request
    def _say(response: Response) -> Response:
        response.headers["X-Request-Id"] = g.get("request_id", "")
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response
