"""No fault of a machine but wishes of owners: jobs cancelled at random moments of their lives."""

from __future__ import annotations

from bench.faults.mix import Kind
from bench.faults.run import Fault, Scene
from tests.scripted_jobs import document, picture

_TIMES = 12
_HIT = (
    Kind("ocr", "sleep 0.3 ", (picture(30),), 1),
    Kind("ocr", "sleep 0.3 ", (document(300, 400, 500),), 3),
    Kind("vqa", "sleep 0.6 ", (picture(31), picture(32)), 1),
)


def _cancel(scene: Scene) -> None:
    """Cancel jobs one after the other, from before their preparation to after their end."""
    for _ in range(_TIMES):
        job = scene.mix.send(scene.http, scene.chance.choice(_HIT))
        assert job is not None
        scene.wait(0, 2)
        scene.http.post(f"/v1/jobs/{job.id}/cancel").raise_for_status()


def _told_lies(scene: Scene) -> list[str]:
    """Jobs that nobody cancelled, results of cancelled jobs, and records that take a cancellation back."""
    wrong = []
    for one in scene.mix.accepted:
        job = scene.http.get(f"/v1/jobs/{one.id}").raise_for_status().json()
        result = scene.http.get(f"/v1/jobs/{one.id}/result").status_code
        if job["status"] == "cancelled" and one.kind not in _HIT:
            wrong.append(f"{one.id} was cancelled by nobody")
        if (result == 200) != (job["status"] == "completed") or (job.get("result") is None) != (result != 200):
            wrong.append(f"{one.id} is {job['status']} and its result answers {result}")
    return wrong


CANCELLED = Fault(
    "jobs cancelled at any moment: no result after that, and no other job ends so",
    _cancel,
    excused=("cancelled",),  # `_told_lies` finds those that nobody cancelled
    after=_told_lies,
)
