"""A part that hangs in native code, where neither a cancel nor a deadline reaches it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conftest import Service
from tests.scripted_jobs import prompted, running

#: What a worker ends with that cannot go on.
CANNOT_GO_ON = 70


@pytest.mark.parametrize("how", ["cancelled", "deadline"])
def test_a_part_that_hangs_costs_its_worker_not_its_job(own_service: Callable[..., Service], how: str) -> None:
    """The job ends as it was told to, parts beside it finish, and the worker's successor has every slot free."""
    service = own_service(PHI4_HANG_SECONDS="0.5")
    hanging = running(service, prompted(service, "hang 100", **({"cancel_after": "2"} if how == "deadline" else {})))
    beside = running(service, prompted(service, "sleep 3", pages=2))
    if how == "cancelled":
        service.http.post(f"/v1/jobs/{hanging}/cancel")

    job = service.ended(hanging)
    assert (job["status"], job["error"]["code"]) == (
        "cancelled",
        {"cancelled": "cancelled", "deadline": "deadline_exceeded"}[how],
    )
    assert service.processes["infer"].wait(30) == CANNOT_GO_ON
    assert service.job(beside)["status"] == "completed"

    service.start("infer", "worker", "infer", PHI4_METRICS_PORT="0", PHI4_ENGINE="tests.engines:Scripted")
    assert service.ended(prompted(service, "read"))["status"] == "completed"
