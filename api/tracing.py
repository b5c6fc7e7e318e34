"""A span for each request under /v1, on which the spans of its job hang."""

from __future__ import annotations

import re

from flask import Flask, Response, g, request

from phi4.tracing import Span, Tracing

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def traceparent() -> str:
    """What a job made by this request belongs to: the request's own span, or else what the client sent."""
    span: Span | None = g.get("span")
    return span.traceparent if span is not None else _sent()


def install(app: Flask, tracing: Tracing) -> None:
    """Trace every request of an application under /v1."""

    @app.before_request
    def _begin() -> None:
        if request.url_rule is not None and request.path.startswith("/v1/"):
            name = f"{request.method} {request.url_rule.rule}"
            about = {"http.request.method": request.method, "http.route": request.url_rule.rule}
            g.span = tracing.begin(name, above=_sent(), kind="server", attributes=about)

    @app.after_request
    def _say(response: Response) -> Response:
        span: Span | None = g.get("span")
        if span is not None:
            span.note(http__response__status_code=response.status_code)
            if response.status_code >= 500:
                span.fail(response.status)
            span.end()
        return response


def _sent() -> str:
    """Take the client's W3C trace context; a malformed one is as good as none, as the standard has it."""
    value = request.headers.get("traceparent", "")
    return value if _TRACEPARENT.fullmatch(value) else ""
