"""Each change of a job's status is one line in the logs, with the job's id and trace, and nothing of its contents."""

from __future__ import annotations

import json
import logging as stdlib_logging
from collections.abc import Iterator
from typing import Any

import pytest

from phi4.log import log, set_up
from tests.conftest import Service, eventually, make_service, png
from tests.servers import web

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def logging(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose logs are read; its cache is on, each test sends bytes of its own."""
    folder = tmp_path_factory.mktemp("logging")
    service = make_service(valkey.removesuffix("/0") + "/9", folder, PHI4_RESULT_CACHE="1")
    try:
        service.start_all("tests.engines:Scripted")
        yield service
    finally:
        service.stop_all()
        service.http.close()


def submitted(service: Service, width: int, **fields: Any) -> str:
    """POST a job under a trace of the client's; returns its id."""
    files = [("file", (f"pineapple-{width}.png", png(width, 60)))]
    data = {"type": "ocr", **fields}
    response = service.http.post("/v1/jobs", data=data, files=files, headers={"traceparent": TRACEPARENT})
    return str(response.raise_for_status().json()["id"])


def lines(service: Service, job_id: str) -> list[dict[str, Any]]:
    """All that was logged of a job so far, by all processes."""
    written = [line for name in service.processes for line in service.output(name).splitlines()]
    return [json.loads(line) for line in written if line.startswith("{") and job_id in line]


def changes(service: Service, job_id: str, last: str) -> list[str]:
    """The changes of status that were logged of a job, once `last` is among them, in the order of the alphabet."""

    def seen() -> list[str]:
        return sorted(line["event"] for line in lines(service, job_id) if line["event"].startswith("job "))

    eventually(lambda: last in seen(), what=f"{last} of {job_id}")
    return seen()


def test_a_job_s_life_is_a_line_for_each_change(logging: Service) -> None:
    """Each has the job's id, type, owner and trace."""
    job = submitted(logging, 100)
    logging.ended(job)

    assert changes(logging, job, "job completed") == ["job completed", "job in_progress", "job queued"]
    for line in lines(logging, job):
        assert (line["job"], line["type"], line["owner"], line["trace"]) == (job, "ocr", "local", TRACE), line


def test_a_result_given_again_is_a_change_too(logging: Service) -> None:
    """A job that is answered from the cache ends like any other."""
    logging.ended(submitted(logging, 110))
    job = submitted(logging, 110)

    assert logging.ended(job)["cached"]
    assert changes(logging, job, "job completed") == ["job completed", "job queued"]


@pytest.mark.parametrize(
    ("width", "prompt", "code"), [(4, "read", "image_too_small"), (120, "fail thrice", "engine_failed")]
)
def test_a_failure_is_one_line_with_its_code(logging: Service, width: int, prompt: str, code: str) -> None:
    """Whether it came in the preparation or in the engine."""
    job = submitted(logging, width, params=json.dumps({"prompt": prompt}))
    logging.ended(job)

    assert changes(logging, job, "job failed").count("job failed") == 1
    (failed,) = [line for line in lines(logging, job) if line["event"] == "job failed"]
    assert (failed["code"], failed["trace"]) == (code, TRACE)


def test_a_cancel_is_told_by_the_api_and_its_end_by_the_worker(logging: Service) -> None:
    """The two are different moments while a part runs."""
    job = submitted(logging, 130, params=json.dumps({"prompt": "sleep 20"}))
    eventually(lambda: logging.job(job)["status"] == "in_progress", what="the job's start")
    logging.http.post(f"/v1/jobs/{job}/cancel").raise_for_status()

    seen = changes(logging, job, "job cancelled")

    assert seen == ["job cancelled", "job cancelling", "job in_progress", "job queued"]


def test_nothing_that_a_caller_sent_is_logged(logging: Service) -> None:
    """Not the file's name, the question, the metadata, the receiver's address, nor the secret that signs."""
    with web() as receiver:
        hook = f"{receiver.url}/pineapple?token=pineapple"
        fields = {"params": '{"question": "a pineapple?"}', "metadata": '{"a": "pineapple"}', "webhook_url": hook}
        job = submitted(logging, 140, type="vqa", **fields)
        logging.ended(job)
        eventually(lambda: receiver.seen, what="the webhook")
        eventually(lambda: "webhook" in [line["event"] for line in lines(logging, job)], what="its line")

    written = "".join(logging.output(name) for name in logging.processes)
    assert "pineapple" not in written
    assert logging.env["PHI4_WEBHOOK_SECRET"].removeprefix("whsec_") not in written


def test_what_a_stranger_sends_is_no_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """A path may hold line ends and words to a terminal; in the text that `phi4 up` writes they are spelled out."""
    root, before = stdlib_logging.getLogger(), stdlib_logging.getLogger().handlers[:]
    level = root.level
    try:
        set_up("text", "INFO")
        log(stdlib_logging.getLogger("test"), "refused", path="/v1/x\n11:59:59 INFO job deleted\x1b[31m ключ")
        (line,) = capsys.readouterr().out.splitlines()
    finally:
        root.handlers[:] = before
        root.setLevel(level)

    assert line.endswith(r"path=/v1/x\n11:59:59 INFO job deleted\x1b[31m ключ")
