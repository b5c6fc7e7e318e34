"""A submission whose outcome the API never hears: the store took it, and its answer was lost on the way."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.auth import Caller
from api.body import Submission, Upload
from api.schemas import JobRequest
from api.submit import Accepted, Submit
from bench.faults.proxy import Proxy, proxy
from phi4.blobs import Blobs
from phi4.errors import IdempotencyConflict, StoreUnavailable
from phi4.queue import Tickets, celery_app
from phi4.settings import load
from phi4.store import LOCAL, Store, connect
from tests.conftest import png


def submission() -> Submission:
    """A picture to be read."""
    return Submission(JobRequest.model_validate({"type": "ocr"}), {}, (Upload("a.png", io.BytesIO(png())),))


#: A port on which nothing listens.
NOBODY = 1


@dataclass
class HardOfHearing:
    """What accepts jobs, on a store that it hears through a proxy."""

    submit: Submit
    proxy: Proxy
    blobs: Blobs

    @contextmanager
    def deaf(self) -> Iterator[None]:
        """Let what is sent in the block arrive, and no answer come back in time."""
        self.proxy.delay = 1.0
        with pytest.raises(StoreUnavailable):
            yield
        self.proxy.delay = 0.0

    def accept(self, key: str) -> Accepted:
        """Submit a picture."""
        uploads = (Upload("a.png", io.BytesIO(png())),)
        submission = Submission(JobRequest.model_validate({"type": "ocr"}), {}, uploads)
        return self.submit.accept(submission, caller=Caller(LOCAL), idempotency_key=key, traceparent="")


@pytest.fixture
def hard_of_hearing(store: Store, valkey: str, tmp_path: Path) -> Iterator[HardOfHearing]:
    """It has accepted one job, so that its connection is there."""
    blobs = Blobs(f"file://{tmp_path}")
    with proxy() as between:
        between.target = int(valkey.rsplit(":", 1)[1].removesuffix("/0"))
        far = Store(connect(valkey.replace(f":{between.target}/0", f":{between.port}/1"), timeout=0.5))
        tickets = Tickets(celery_app(valkey.removesuffix("/0") + "/14"))
        made = HardOfHearing(Submit(load(engine="", data_dir=tmp_path), far, blobs, tickets), between, blobs)
        made.accept("")
        yield made
        far.client.close()


def test_a_job_whose_acceptance_was_not_heard_keeps_its_input(store: Store, hard_of_hearing: HardOfHearing) -> None:
    """The client is told to try again; the job is there, can be worked on, and is what a repeated request gets."""
    with hard_of_hearing.deaf():
        hard_of_hearing.accept("k")

    again = hard_of_hearing.accept("k")

    assert again.replayed
    assert [hard_of_hearing.blobs.exists(one.blob) for one in again.job.inputs] == [True]
    assert len(store.jobs.newest("local", limit=10)[0]) == 2


def test_a_key_whose_reservation_was_not_heard_is_free_for_the_next_try(hard_of_hearing: HardOfHearing) -> None:
    """Its request has ended with an error, so that nobody holds it any more."""
    reserving = hard_of_hearing.submit.reserving
    with hard_of_hearing.deaf(), reserving("local", "k"):
        pass

    with reserving("local", "k"), pytest.raises(IdempotencyConflict), reserving("local", "k"):
        pass


def test_a_key_that_could_not_be_let_go_is_free_for_the_next_try(hard_of_hearing: HardOfHearing) -> None:
    """Redis had gone away when the request ended."""
    reserving = hard_of_hearing.submit.reserving
    proxy = hard_of_hearing.proxy
    with reserving("local", "k"):
        redis, proxy.target = proxy.target, NOBODY
        proxy.cut()
    proxy.target = redis

    with reserving("local", "k"):
        pass
