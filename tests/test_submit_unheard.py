"""A submission whose outcome the API never hears: the store took it, and its answer was lost on the way."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from api.body import Submission, Upload
from api.schemas import JobRequest
from api.submit import Submit
from bench.faults.proxy import proxy
from phi4.blobs import Blobs
from phi4.errors import StoreUnavailable
from phi4.queue import Tickets, celery_app
from phi4.settings import load
from phi4.store import Store, connect
from tests.conftest import png


def submission() -> Submission:
    """A picture to be read."""
    return Submission(JobRequest.model_validate({"type": "ocr"}), {}, (Upload("a.png", io.BytesIO(png())),))


def test_a_job_whose_acceptance_was_not_heard_keeps_its_input(store: Store, valkey: str, tmp_path: Path) -> None:
    """The client is told to try again; the job is there, can be worked on, and is what a repeated request gets."""
    blobs = Blobs(f"file://{tmp_path}")
    with proxy() as between, celery_app(valkey.removesuffix("/0") + "/14") as app:
        between.target = int(valkey.rsplit(":", 1)[1].removesuffix("/0"))
        url = valkey.replace(f":{between.target}/0", f":{between.port}/1")
        hard_of_hearing = Store(connect(url, timeout=0.5))
        submit = Submit(load(engine="", data_dir=tmp_path), hard_of_hearing, blobs, Tickets(app))
        submit.accept(submission(), owner="local", idempotency_key="", traceparent="")

        between.delay = 2.0
        with pytest.raises(StoreUnavailable):
            submit.accept(submission(), owner="local", idempotency_key="k", traceparent="")
        between.delay = 0.0

        again = submit.accept(submission(), owner="local", idempotency_key="k", traceparent="")
        hard_of_hearing.client.close()
        app.pool.force_close_all()

    assert again.replayed
    assert [blobs.exists(one.blob) for one in again.job.inputs] == [True]
    assert len(store.jobs.newest("local", limit=10)[0]) == 2
