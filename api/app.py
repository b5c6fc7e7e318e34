"""The API's composition root: builds the services once and hangs the routes on one Flask application."""

from __future__ import annotations

import re
import threading

from flask import Flask, Response, g, request
from flask_cors import CORS
from werkzeug.middleware.proxy_fix import ProxyFix

from api import (
    auth,
    console,
    deliveries,
    docs,
    events,
    health,
    jobs,
    metrics,
    mistral,
    openai,
    problems,
    rate_limits,
    tracing,
)
from api.openai import errors as openai_errors
from api.openai.batch_runner import BatchRunner
from api.services import Services
from phi4.job import new_id
from phi4.settings import Settings
from phi4.tracing import start

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
#: What scripts on other pages may read of an answer, beside its body.
_EXPOSED = ["Location", "Retry-After", "Idempotent-Replayed", "Preference-Applied", "RateLimit", "RateLimit-Policy"]
_PREFLIGHT_S = 600
#: Form fields beside the files; JSON in `params` may be long.
_MAX_FORM_BYTES = 4 << 20
#: Where errors are told in the shape of another API.
_SHAPES = dict.fromkeys(openai.PATHS, openai_errors.shape) | dict.fromkeys(mistral.PATHS, mistral.shape)


def create_app(settings: Settings, closing: threading.Event | None = None, *, runs_batches: bool = False) -> Flask:
    """Make the application; `closing` ends its event streams, `runs_batches` lets it work on batches.

    Raises `StoreUnavailable`, `UnsuitableRedis`, `Unprotected`.
    """
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_mb << 20
    app.config["MAX_FORM_MEMORY_SIZE"] = _MAX_FORM_BYTES
    app.json.sort_keys = False  # type: ignore[attr-defined]  # the default provider has it
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    services = Services.build(settings, closing or threading.Event())
    problems.install(app, _SHAPES)
    _name_requests(app)
    metrics.install(app, settings, services.store)
    tracing.install(app, start(settings, "phi4-api"))
    auth.install(app, settings, services.store.access)
    rate_limits.install(app, rate_limits.RateLimits(settings.redis_url, services.store))
    _stand_behind_proxies(app, settings.trusted_proxies)
    _allow_pages(app, settings.listed_cors_origins)
    for room in (jobs, deliveries, events, openai, mistral, health, docs, console):
        app.register_blueprint(room.blueprint(services))
    if runs_batches:
        BatchRunner(services).start()
    return app


def _stand_behind_proxies(app: Flask, count: int) -> None:
    """Believe what so many proxies say of the client; what others say in such headers is not looked at."""
    if count:
        proxied = ProxyFix(app.wsgi_app, x_for=count, x_proto=count, x_host=count, x_prefix=count)
        app.wsgi_app = proxied  # type: ignore[method-assign]  # as its documentation has it


def _allow_pages(app: Flask, origins: tuple[str, ...]) -> None:
    """Let browsers call from pages of these origins; keys are sent in a header, so cookies are never asked for."""
    if origins:
        CORS(app, origins=list(origins), expose_headers=_EXPOSED, max_age=_PREFLIGHT_S)


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
