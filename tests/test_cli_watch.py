"""`phi4 jobs watch`: the events of a job on stdout, until it ends."""

from __future__ import annotations

import json

import pytest

from tests.conftest import Service
from tests.scripted_api import Command
from tests.scripted_jobs import prompted


@pytest.fixture
def phi4(service: Service) -> Command:
    """The command against the running service."""
    return Command(str(service.http.base_url))


def test_a_job_is_shown_line_by_line(service: Service, phi4: Command) -> None:
    """Status, text as it is written, progress; 0 when it completed."""
    job_id = prompted(service, "speak 0.2 to|be|or|not")

    result = phi4("jobs", "watch", job_id)

    assert result.stdout == "queued\nin progress\npart 0: tobeornot\n1/1 page\ncompleted\n"
    assert result.exit_code == 0


def test_a_failed_job_says_why(service: Service, phi4: Command) -> None:
    """And the exit code is 1."""
    result = phi4("jobs", "watch", prompted(service, "cannot"))

    assert result.stdout.splitlines()[-2:] == [
        "failed",
        "This engine cannot answer this on purpose. (engine_cannot_answer)",
    ]
    assert result.exit_code == 1


def test_events_as_json_are_one_object_a_line(service: Service, phi4: Command) -> None:
    """Number, name and data, the result as well."""
    result = phi4("jobs", "watch", "--json", prompted(service, "read"))

    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [e["id"] for e in events] == [1, 2, 3, 4, 5]
    assert events[-1]["event"] == "result"
    assert events[-1]["data"]["result"]["text"] == "page 64x48"


def test_a_job_that_is_not_there_is_said_so(service: Service, phi4: Command) -> None:
    """One line on stderr and exit code 1, without waiting."""
    result = phi4("jobs", "watch", "job_none")

    assert result.exit_code == 1
    assert "not_found" in result.stderr
