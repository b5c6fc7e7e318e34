"""`phi4 jobs` on a running service: run again, erase, and look after webhooks."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from typer.testing import Result

from tests.conftest import Service, eventually
from tests.scripted_api import Command
from tests.servers import Reply, web


@pytest.fixture
def phi4(service: Service) -> Command:
    """The command against a running service."""
    return Command(str(service.http.base_url))


def ended(service: Service, **fields: Any) -> str:
    """Run a job to its end; gives its id."""
    return str(service.ended(service.submit(**fields).raise_for_status().json()["id"])["id"])


def test_a_failed_job_runs_again(service: Service, phi4: Command) -> None:
    """`retry` shows it queued; one that completed is refused, in a sentence, with exit code 1."""
    failed, completed = ended(service, params='{"prompt": "fail"}'), ended(service)

    again: Result = phi4("jobs", "retry", failed, "--json")
    refused = phi4("jobs", "retry", completed)

    assert json.loads(again.stdout)["attempts"] == 2
    assert refused.exit_code == 1
    assert "only one that failed or was cancelled" in refused.stderr


def test_a_job_is_erased(service: Service, phi4: Command) -> None:
    """`delete` says nothing when all is well."""
    job = ended(service)

    assert (phi4("jobs", "delete", job).output, phi4("jobs", "show", job).exit_code) == ("", 1)
    assert service.http.get(f"/v1/jobs/{job}").status_code == 404


def test_what_was_erased_is_told_as_json(service: Service, phi4: Command) -> None:
    """The service's own answer."""
    job = ended(service)

    assert json.loads(phi4("jobs", "delete", job, "--json").stdout) == {"id": job, "object": "job", "deleted": True}


def test_webhooks_are_shown_and_sent_again(service: Service, phi4: Command) -> None:
    """`deliveries` tells every try; `replay` sends one again under its id."""
    with web() as receiver:
        receiver.answer = lambda _: Reply(410)
        job = ended(service, webhook_url=receiver.url)
        eventually(lambda: receiver.seen, what="the webhook")
        eventually(lambda: "gone" in phi4("jobs", "deliveries", job).stdout, what="the end of the delivery")
        (delivery,) = [json.loads(line) for line in phi4("jobs", "deliveries", job, "--json").stdout.splitlines()]
        receiver.answer = lambda _: Reply()
        replayed = phi4("jobs", "replay", job, delivery["id"], "--json")
        eventually(lambda: len(receiver.seen) == 2, what="the replay")

    table = phi4("jobs", "deliveries", job).stdout
    assert (replayed.exit_code, json.loads(replayed.stdout)["id"]) == (0, delivery["id"])
    assert delivery["id"] in table
    assert "410" in table
    assert {httpx.Headers(request.headers)["webhook-id"] for request in receiver.seen} == {delivery["id"]}
