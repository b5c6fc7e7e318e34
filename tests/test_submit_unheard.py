"""A submission whose outcome the API never hears: the store took it, and its answer was lost on the way."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
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
from phi4.store import Store, connect
from tests.conftest import png

#: A port on which nothing listens.
NOBODY = 1


class Told(io.BytesIO):
    """A file that tells when it is read."""

    def __init__(self, content: bytes, on_read: Callable[[], None]) -> None:
        super().__init__(content)
        self._on_read = on_read

    def read(self, size: int | None = -1, /) -> bytes:
        """Tell, and read."""
        self._on_read()
        return super().read(size)


@dataclass
class HardOfHearing:
    """What accepts jobs, on a store that it hears through a proxy."""

    submit: Submit
    proxy: Proxy
    blobs: Blobs

    @contextmanager
    def deaf(self) -> Iterator[None]:
        """Let what is sent in the block arrive, and no answer come back in time."""
        self._stop_hearing()
        with pytest.raises(StoreUnavailable):
            yield
        self.proxy.delay = 0.0

    def _stop_hearing(self) -> None:
        self.proxy.delay = 1.0

    def accept(self, key: str, *, deaf: bool = False) -> Accepted:
        """Submit a picture; `deaf`: once it is being stored, no answer comes back in time."""
        uploads = (Upload("a.png", Told(png(), self._stop_hearing if deaf else lambda: None)),)
        submission = Submission(JobRequest.model_validate({"type": "ocr"}), {}, uploads)
        return self.submit.accept(submission, caller=Caller("local"), idempotency_key=key, traceparent="")


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
    with pytest.raises(StoreUnavailable):
        hard_of_hearing.accept("k", deaf=True)
    hard_of_hearing.proxy.delay = 0.0

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
