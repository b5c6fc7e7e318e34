"""One job is one OpenTelemetry trace, from the client's call to the webhook, through all processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Told

from phi4.settings import load
from phi4.tracing import OFF, start
from tests.conftest import ROOT, Service, eventually, make_service, pdf
from tests.servers import Web, web

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
Spans = dict[str, list[tuple[str, Told]]]


def spans_of(collector: Web, trace: str) -> Spans:
    """The spans of a trace that were sent so far, by name, each with the service that sent it."""
    found: Spans = {}
    for request in [r for r in collector.seen if r.path == "/v1/traces"]:
        for resource in ExportTraceServiceRequest.FromString(request.body).resource_spans:
            service = {a.key: a.value.string_value for a in resource.resource.attributes}["service.name"]
            for told in (s for scope in resource.scope_spans for s in scope.spans if s.trace_id.hex() == trace):
                found.setdefault(told.name, []).append((service, told))
    return found


def attribute(told: Told, name: str) -> str | int:
    """One attribute of a span."""
    value = {a.key: a.value for a in told.attributes}[name]
    return value.string_value or value.int_value


@pytest.fixture(scope="module")
def collector() -> Iterator[Web]:
    """What receives spans by OTLP over HTTP."""
    with web() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def traced(collector: Web, valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The whole service, in a Redis database of its own, telling the collector."""
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    service = make_service(valkey.removesuffix("/0") + "/8", tmp_path_factory.mktemp("traced"), **env)
    try:
        service.start_all("tests.engines:Scripted")
        yield service
    finally:
        codes = service.stop_all()
        service.http.close()
    assert codes == dict.fromkeys(codes, 0)


@pytest.fixture(scope="module")
def spans(traced: Service, collector: Web) -> Spans:
    """Those of one job of three pages with a webhook, whose caller had a trace already."""
    with web() as receiver:
        sent = traced.http.post(
            "/v1/jobs",
            data={"type": "ocr", "webhook_url": f"{receiver.url}/hook"},
            files={"file": pdf(3)},
            headers={"traceparent": f"00-{TRACE}-{CALLER}-01"},
        )
        traced.ended(sent.json()["id"])
        posted = eventually(lambda: receiver.seen and receiver.seen[0], what="the webhook")
        eventually(lambda: {"webhook", "finish", "prepare"} <= set(spans_of(collector, TRACE)), what="all spans")
        eventually(lambda: len(spans_of(collector, TRACE)["part"]) == 3, what="the spans of the parts")
    found = spans_of(collector, TRACE)
    assert posted.headers["traceparent"] == f"00-{TRACE}-{found['webhook'][0][1].span_id.hex()}-01"
    return found


def test_every_step_of_a_job_is_a_span_of_one_trace(spans: Spans) -> None:
    """Told by the process that took the step."""
    told = {name: sorted(service for service, _ in these) for name, these in spans.items()}

    assert told == {
        "POST /v1/jobs": ["phi4-api"],
        "queue prepare": ["phi4-worker-side"],
        "prepare": ["phi4-worker-side"],
        "queue part": ["phi4-worker-infer"] * 3,
        "part": ["phi4-worker-infer"] * 3,
        "engine scripted": ["phi4-worker-infer"] * 3,
        "finish": ["phi4-worker-infer"],
        "webhook": ["phi4-worker-side"],
    }


def test_spans_hang_where_they_belong(spans: Spans) -> None:
    """The request below the caller's span, the job's steps below the request, the engine below its part."""
    ids = {name: {told.span_id for _, told in these} for name, these in spans.items()}
    above = {name: {told.parent_span_id for _, told in these} for name, these in spans.items()}

    assert above.pop("POST /v1/jobs") == {bytes.fromhex(CALLER)}
    assert above.pop("engine scripted") == ids["part"]
    assert all(parents == ids["POST /v1/jobs"] for parents in above.values())


def test_spans_lie_in_time_as_they_happened(spans: Spans) -> None:
    """Each wait ends where its step begins, and an engine's span lies within its part's."""
    _, prepare = spans["prepare"][0]
    _, queued = spans["queue prepare"][0]
    assert queued.start_time_unix_nano < queued.end_time_unix_nano <= prepare.start_time_unix_nano
    parts = {told.span_id: told for _, told in spans["part"]}
    for _, engine in spans["engine scripted"]:
        part = parts[engine.parent_span_id]
        assert part.start_time_unix_nano <= engine.start_time_unix_nano
        assert engine.end_time_unix_nano <= part.end_time_unix_nano


def test_spans_say_what_they_are_about(spans: Spans) -> None:
    """The job, the unit, tokens in OpenTelemetry's words; never an input or a result."""
    _, request = spans["POST /v1/jobs"][0]
    assert (attribute(request, "http.route"), attribute(request, "http.response.status_code")) == ("/v1/jobs", 202)
    assert request.kind == Told.SPAN_KIND_SERVER
    assert {attribute(told, "phi4.unit") for _, told in spans["part"]} == {"0", "1", "2"}
    assert {attribute(told, "gen_ai.usage.output_tokens") for _, told in spans["engine scripted"]} == {3}
    assert attribute(spans["webhook"][0][1], "phi4.answer") == "200"
    assert not any(told.status.code == told.status.STATUS_CODE_ERROR for these in spans.values() for _, told in these)


def test_a_job_without_a_trace_gets_one(traced: Service, collector: Web) -> None:
    """It begins with the request; what fails is marked."""
    job = traced.submit(params=json.dumps({"prompt": "cannot"})).json()
    assert traced.ended(job["id"])["status"] == "failed"

    def failed() -> list[Told]:
        every = [s for r in collector.seen for s in _all_spans(r.body)]
        return [s for s in every if s.name == "part" and attribute(s, "phi4.job") == job["id"]]

    (part,) = eventually(failed, what="its span")
    assert part.trace_id.hex() != TRACE
    assert (part.status.code, part.status.message) == (part.status.STATUS_CODE_ERROR, "failed")


def _all_spans(body: bytes) -> list[Told]:
    resources = ExportTraceServiceRequest.FromString(body).resource_spans
    return [told for resource in resources for scope in resource.scope_spans for told in scope.spans]


def test_a_caller_that_does_not_sample_is_heeded(traced: Service, collector: Web) -> None:
    """The flag of its `traceparent` is passed on, and nothing is told."""
    quiet, loud = "a" * 32, "b" * 32
    for trace, flag in ((quiet, "00"), (loud, "01")):
        headers = {"traceparent": f"00-{trace}-{CALLER}-{flag}"}
        sent = traced.http.post("/v1/jobs", data={"type": "ocr"}, files={"file": pdf(1)}, headers=headers)
        traced.ended(sent.json()["id"])
    eventually(lambda: "finish" in spans_of(collector, loud), what="the spans of the one that samples")

    assert spans_of(collector, quiet) == {}


LOADED = """
import sys
import api.app, worker.app
from phi4.settings import load
from phi4.tracing import OFF, start
assert start(load(), "x") is OFF
print([name for name in sys.modules if name.startswith("opentelemetry.sdk.trace") or ".otlp" in name])
"""


def test_nothing_is_loaded_without_an_endpoint() -> None:
    """Neither in the API nor in a worker."""
    ran = subprocess.run([sys.executable, "-c", LOADED], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert ran.stdout == "[]\n", ran.stderr


def test_without_the_extra_the_service_runs_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Traces are no reason not to work."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with caplog.at_level("WARNING"):
        assert start(load(), "x") is OFF

    assert "no traces" in caplog.text


def test_a_collector_that_is_away_holds_up_nothing(own_service: Callable[..., Service]) -> None:
    """Jobs end, and processes end when told to."""
    service = own_service(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_EXPORTER_OTLP_TIMEOUT="1")
    job = service.submit().json()

    assert service.ended(job["id"])["status"] == "completed"
    assert service.stop_all() == {"api": 0, "side": 0, "infer": 0}
