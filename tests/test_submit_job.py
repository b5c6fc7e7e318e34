"""POST /v1/jobs: every way to send a file, and what the answer says."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from phi4.errors import StoreUnavailable
from phi4.store import Store
from phi4.store.changes import Changes
from phi4.store.keys import key
from tests.conftest import ROOT, Service, eventually, pdf, png
from tests.keyed_app import JOB, make_app
from tests.making_jobs import raw
from tests.scripted_jobs import accepted, logged, picture, prompted
from tests.servers import Reply, Web, web

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
WAIT = {"Prefer": "wait=20"}
SECRET = "whsec_" + base64.b64encode(b"0" * 24).decode()


@pytest.fixture
def server() -> Iterator[Web]:
    """A web server on loopback, which PHI4_ALLOW_HOSTS lists."""
    with web() as running:
        yield running


def base64_of(data: bytes) -> str:
    """What `base64` writes."""
    return base64.b64encode(data).decode()


def submit_json(service: Service, **fields: Any) -> dict[str, Any]:
    """Submit JSON and wait for the job's end."""
    response = service.http.post("/v1/jobs", json=fields, headers=WAIT)
    assert response.status_code == 200, response.text
    return dict(response.json())


@pytest.mark.parametrize(
    "data",
    [
        base64_of(png()),
        "data:image/png;base64," + base64_of(png()),
        "data:;base64," + base64_of(png()),
        base64.encodebytes(png()).decode(),
    ],
    ids=["base64", "data URL", "data URL without a type", "base64 in lines"],
)
def test_json_carries_a_file_as_base64(service: Service, data: str) -> None:
    """`data` is base64 or a data: URL; what the file is, is told by its bytes."""
    job = submit_json(service, type="ocr", input={"data": data, "filename": "a.pdf"})

    assert job["result"]["text"] == "page 320x200"
    assert job["input"] == [
        {
            "filename": "a.pdf",
            "media_type": "image/png",
            "bytes": len(png()),
            "sha256": hashlib.sha256(png()).hexdigest(),
            "pages": 1,
        }
    ]


def test_json_carries_several_inputs(service: Service) -> None:
    """Each input's pages come in order, and say which input they are of."""
    files = [picture(0), pdf(2), picture(9)]

    job = submit_json(service, type="ocr", input=[{"data": base64_of(file)} for file in files])

    pages = [(p["index"], p["input"], p["page"]) for p in job["result"]["pages"]]
    assert pages == [(0, 0, 1), (1, 1, 1), (2, 1, 2), (3, 2, 1)]
    assert [one["pages"] for one in job["input"]] == [1, 2, 1]


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param('["job.failed", "job.started"]', id="JSON"),
        pytest.param("job.failed, job.started", id="separated by commas"),
        pytest.param(["job.failed", "job.started"], id="one by one"),
    ],
)
def test_multipart_carries_a_list_of_events(store: Store, tmp_path: Path, sent: str | list[str]) -> None:
    """As JSON like the other fields, or as forms have lists."""
    form = {
        "type": "ocr",
        "webhook_url": "https://a.example/",
        "webhook_events": sent,
        "file": (io.BytesIO(png()), "a"),
    }

    response = make_app(store, tmp_path, webhook_secret=SECRET).test_client().post("/v1/jobs", data=form)

    assert response.status_code == 202, response.text
    noted = raw(store).hget(key("job", response.json["id"]), "webhook_events")
    assert set(noted.split()) == {"job.failed", "job.started"}


def test_multipart_carries_several_files(service: Service) -> None:
    """Parts named `file` are the inputs, `params` and `metadata` are JSON, the rest is flat."""
    job = accepted(
        service.http.post(
            "/v1/jobs",
            data={
                "type": "ocr",
                "params": json.dumps({"pages": "1", "format": "text"}),
                "metadata": json.dumps({"customer": "42", "note": "ä 😀"}),
                "priority": "high",
                "cancel_after": "60",
            },
            files=[("file", ("a.png", picture())), ("file", ("../../b c.pdf", pdf(3)))],
            headers=WAIT,
        )
    )

    assert [one["filename"] for one in job["input"]] == ["a.png", "../../b c.pdf"]
    assert [(p["input"], p["page"], p["markdown"]) for p in job["result"]["pages"]] == [(0, 1, ""), (1, 1, "")]
    assert job["metadata"] == {"customer": "42", "note": "ä 😀"}
    assert job["priority"] == "high"


def test_multipart_carries_urls_beside_files(service: Service, server: Web) -> None:
    """The field `input` holds as JSON what a JSON body would; its inputs come before the files."""
    server.answer = lambda _: Reply(body=pdf(1))
    data = {"type": "ocr", "input": json.dumps({"url": server.url})}

    job = accepted(service.http.post("/v1/jobs", data=data, files={"file": ("b.png", png())}, headers=WAIT))

    assert [one["media_type"] for one in job["input"]] == ["application/pdf", "image/png"]


def test_a_url_is_fetched(service: Service, server: Web) -> None:
    """The worker fetches the file; the job then tells what it was."""
    server.answer = lambda request: Reply(body=png(), headers={"Content-Type": "text/html"})

    job = submit_json(service, type="ocr", input={"url": f"{server.url}/scan?x=1", "filename": "scan"})

    assert [(r.method, r.path) for r in server.seen] == [("GET", "/scan?x=1")]
    assert job["result"]["text"] == "page 320x200"
    assert {"url": f"{server.url}/scan?x=1", "media_type": "image/png", "bytes": len(png())}.items() <= job["input"][
        0
    ].items()


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (Reply(404, b"nothing"), "fetch_failed"),
        (Reply(302, headers={"Location": "/elsewhere"}), "fetch_failed"),
        (Reply(200, b"<html>"), "unsupported_media_type"),
        (Reply(200, b""), "empty_input"),
    ],
    ids=["not found", "redirect", "not a picture", "empty"],
)
def test_a_url_that_gives_no_file_fails_the_job(service: Service, server: Web, reply: Reply, code: str) -> None:
    """The job's error says what came instead."""
    server.answer = lambda _: reply

    job = submit_json(service, type="ocr", input={"url": server.url})

    assert (job["status"], job["error"]["code"], job["error"]["phase"]) == ("failed", code, "prepare")


@pytest.mark.parametrize("host", ["localhost", "127.1", "[::1]", "10.0.0.1", "169.254.169.254"])
def test_a_url_that_is_not_public_is_never_called(service: Service, server: Web, host: str) -> None:
    """Only public addresses and those in PHI4_ALLOW_HOSTS are fetched from, however they are spelled."""
    job = submit_json(service, type="ocr", input={"url": server.url.replace("127.0.0.1", host)})

    assert (job["status"], job["error"]["code"]) == ("failed", "url_forbidden")
    assert server.seen == []


def test_the_answer_says_where_the_job_is(service: Service) -> None:
    """202 with the job, its address, and when to ask again."""
    response = service.submit()

    job = response.json()
    assert (response.status_code, job["object"], job["type"]) == (202, "job", "ocr")
    assert response.headers["Location"] == job["links"]["self"] == f"/v1/jobs/{job['id']}"
    assert int(response.headers["Retry-After"]) > 0
    assert "Preference-Applied" not in response.headers
    assert "Idempotent-Replayed" not in response.headers


def test_prefer_wait_gives_the_end_with_its_result(service: Service) -> None:
    """200 when the job ended in time."""
    response = service.http.post(
        "/v1/jobs", data={"type": "ocr"}, files={"file": png()}, headers={"Prefer": "respond-async, wait=20"}
    )

    assert (response.status_code, response.headers["Preference-Applied"]) == (200, "wait=20")
    assert response.json()["result"]["text"] == "page 320x200"
    assert "Retry-After" not in response.headers


@pytest.mark.parametrize("prefer", ["Wait=20", 'wait="20"', "WAIT = 20; foo=1", "wait=99999"])
def test_preferences_are_written_in_many_ways(service: Service, prefer: str) -> None:
    """RFC 7240: names in any case, values with quotes; what is longer than is waited for is cut."""
    response = service.http.post("/v1/jobs", data={"type": "ocr"}, files={"file": png()}, headers={"Prefer": prefer})

    applied = "wait=60" if "9" in prefer else "wait=20"
    assert (response.status_code, response.headers["Preference-Applied"]) == (200, applied)


def test_prefer_wait_gives_202_when_the_time_is_over(service: Service) -> None:
    """The job goes on; the answer is that of a job without `Prefer`."""
    data = {"type": "ocr", "params": json.dumps({"prompt": "sleep 60"})}
    response = service.http.post("/v1/jobs", data=data, files={"file": png()}, headers={"Prefer": "wait=1"})

    job = response.json()
    service.http.delete(f"/v1/jobs/{job['id']}")
    assert (response.status_code, response.headers["Preference-Applied"]) == (202, "wait=1")
    assert (job["status"], int(response.headers["Retry-After"])) == ("in_progress", 1)


@pytest.mark.parametrize("prefer", ["wait=abc", "wait=-1", "waiting=5", "respond-async"])
def test_a_preference_that_makes_no_sense_is_ignored(service: Service, prefer: str) -> None:
    """As RFC 7240 has it: a preference is no demand."""
    response = service.http.post("/v1/jobs", data={"type": "ocr"}, files={"file": png()}, headers={"Prefer": prefer})

    assert response.status_code == 202
    assert "Preference-Applied" not in response.headers


@pytest.mark.parametrize(
    ("job_type", "file", "params", "complete"),
    [
        ("ocr", png(), {}, {"format": "markdown", "detail": "auto", "temperature": 0.0}),
        ("vqa", png(), {"question": "What?"}, {"question": "What?", "detail": "auto", "temperature": 0.0}),
        (
            "asr",
            (ROOT / "examples/inputs/talk.mp3").read_bytes(),
            {"timestamps": "none"},
            {"task": "transcribe", "target_language": "en", "timestamps": "none"},
        ),
    ],
    ids=["ocr", "vqa", "asr"],
)
def test_params_are_completed(
    service: Service, job_type: str, file: bytes, params: dict[str, Any], complete: dict[str, Any]
) -> None:
    """The job shows the params it runs with, defaults included."""
    job = accepted(service.submit(job_type, file, params=json.dumps(params)))

    assert job["params"] == complete
    assert service.ended(job["id"])["status"] == "completed"


def test_a_question_is_asked_over_all_inputs(service: Service) -> None:
    """Several pictures and pages are one question, so one part."""
    job = submit_json(
        service,
        type="vqa",
        params={"question": "Which is oldest?", "pages": "1-2"},
        input=[{"data": base64_of(pdf(3))}, {"data": base64_of(pdf(2))}],
    )

    assert job["result"]["answer"] == "4 images: Which is oldest?"
    assert job["progress"] == {"completed": 1, "total": 1, "unit": "question"}


def test_a_trace_reaches_the_workers_log(service: Service) -> None:
    """The trace id of `traceparent` is in every line about the job, in every process."""
    response = service.http.post(
        "/v1/jobs", data={"type": "ocr"}, files={"file": png()}, headers={"traceparent": TRACEPARENT}
    )

    job_id = response.json()["id"]
    service.ended(job_id)
    for process, event in (("api", "job queued"), ("side", "prepare done"), ("infer", "part done")):
        eventually(partial(logged, service, process, event, job_id), what=f"{event} in {process}'s log")
        (line,) = logged(service, process, event, job_id)
        assert line["trace"] == TRACE


@pytest.mark.parametrize(
    "traceparent", ["garbage", f"00-{'0' * 32}-00f067aa0ba902b7-01", f"ff-{TRACE}-00f067aa0ba902b7-01", "a-b-c-d"]
)
def test_a_malformed_trace_is_dropped(service: Service, traceparent: str) -> None:
    """A trace context that breaks the standard is as good as none."""
    response = service.http.post(
        "/v1/jobs", data={"type": "ocr"}, files={"file": png()}, headers={"traceparent": traceparent}
    )

    assert logged(service, "api", "job queued", response.json()["id"])[0]["trace"] == ""


def test_a_caller_may_name_its_request(service: Service) -> None:
    """A harmless X-Request-Id comes back; any other is replaced."""
    named = service.http.get("/livez", headers={"X-Request-Id": "my-request.1"})
    strange = service.http.get("/livez", headers={"X-Request-Id": "<script>"})

    assert named.headers["X-Request-Id"] == "my-request.1"
    assert strange.headers["X-Request-Id"].startswith("req_")


def test_an_input_may_go_before_the_result(service: Service) -> None:
    """With `input_retention: until_done` only the result is left when the job ends."""
    kept, gone = prompted(service, "read"), prompted(service, "read", input_retention="until_done")
    for job_id in (kept, gone):
        assert service.ended(job_id)["status"] == "completed"

    def files(job_id: str) -> list[str]:
        return sorted(path.name for path in service.data_dir.glob(f"blobs/*/{job_id}/*") if path.is_file())

    assert files(kept) == ["input-0", "result-1.json"]
    eventually(lambda: files(gone) == ["result-1.json"], what="the input's end")


def test_an_accepted_job_is_told_though_it_cannot_be_waited_for(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store may be away for a moment: a client that reads 503 would send the job a second time."""

    def away(*_: object) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(Changes, "wait_until", away)
    response = make_app(store, tmp_path).test_client().post("/v1/jobs", json=JOB, headers=WAIT)

    assert (response.status_code, response.json["status"]) == (202, "queued")
    assert response.headers["Location"] == f"/v1/jobs/{response.json['id']}"
    assert "Preference-Applied" not in response.headers
