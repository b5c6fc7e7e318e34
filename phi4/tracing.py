"""Spans of jobs for OpenTelemetry: nothing of it is loaded unless OTEL_EXPORTER_OTLP_ENDPOINT says where they go.

A job's spans hang on the POST that made it: its `traceparent` lies in the job's record, and goes out with the webhook.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

from phi4 import __version__
from phi4.log import log
from phi4.settings import Settings

_log = logging.getLogger(__name__)
Kind = Literal["server", "consumer", "client", "internal"]
Attributes = Mapping[str, str | int | float]


@dataclass(slots=True)
class Span:
    """One step under way, and how those below it name it (W3C); without tracing it is the step above."""

    traceparent: str = ""

    def note(self, **attributes: str | int | float) -> None:
        """Add what is known by now; `__` in a name is a dot."""

    def fail(self, why: str) -> None:
        """Say that the step failed."""

    def end(self) -> None:
        """End the step; once."""


class Tracing:
    """Makes spans; this one makes none."""

    def begin(self, name: str, *, above: str, kind: Kind, attributes: Attributes) -> Span:
        """Begin a step below the one that `above` names; '' begins a trace."""
        return Span(above)

    def step(
        self, name: str, *, above: str, kind: Kind = "internal", attributes: Attributes | None = None
    ) -> AbstractContextManager[Span]:
        """Hold a step for the time of the block; an exception fails it."""
        return nullcontext(Span(above))

    def waited(self, name: str, *, above: str, seconds: float, attributes: Attributes) -> None:
        """Tell of a wait that ends now."""


OFF = Tracing()


def start(settings: Settings, service: str) -> Tracing:
    """Begin to trace this process when the settings say so; once in a process, after any fork."""
    if not settings.otlp_endpoint:
        return OFF
    try:
        return _Otel(service)
    except ImportError:
        hint = 'pip install "phi4-service[otel]"'
        log(_log, "no traces", level=logging.WARNING, hint=hint)
        return OFF


class _Otel(Tracing):
    """Makes OpenTelemetry's spans and sends them by OTLP over HTTP; the SDK reads its own standard variables."""

    def __init__(self, service: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        resource = Resource.create()
        if str(resource.attributes.get("service.name", "unknown_service")).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": service, "service.version": __version__}))
        provider = TracerProvider(resource=resource)  # it sends what is left when the process ends
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = provider.get_tracer("phi4", __version__)

    def begin(self, name: str, *, above: str, kind: Kind, attributes: Attributes) -> Span:
        return self._begin(name, above=above, kind=kind, attributes=attributes)

    @contextmanager
    def step(
        self, name: str, *, above: str, kind: Kind = "internal", attributes: Attributes | None = None
    ) -> Iterator[Span]:
        span = self._begin(name, above=above, kind=kind, attributes=attributes or {})
        try:
            yield span
        except Exception as error:
            span.fail(type(error).__name__)
            raise
        finally:
            span.end()

    def waited(self, name: str, *, above: str, seconds: float, attributes: Attributes) -> None:
        began = time.time_ns() - int(seconds * 1e9)
        self._begin(name, above=above, kind="internal", attributes=attributes, start_time=began).end()

    def _begin(self, name: str, *, above: str, kind: Kind, attributes: Attributes, **when: int) -> _OtelSpan:
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        propagator = TraceContextTextMapPropagator()
        context = propagator.extract({"traceparent": above} if above else {})
        otel_kind = SpanKind[kind.upper()]
        made = self._tracer.start_span(name, context, otel_kind, attributes=dict(attributes), **when)  # type: ignore[arg-type]
        carrier: dict[str, str] = {}
        propagator.inject(carrier, set_span_in_context(made, context))
        return _OtelSpan(carrier.get("traceparent", above), made)


@dataclass(slots=True)
class _OtelSpan(Span):
    otel: Any = None

    def note(self, **attributes: str | int | float) -> None:
        self.otel.set_attributes({name.replace("__", "."): value for name, value in attributes.items()})

    def fail(self, why: str) -> None:
        from opentelemetry.trace import StatusCode

        self.otel.set_status(StatusCode.ERROR, why)

    def end(self) -> None:
        self.otel.end()
