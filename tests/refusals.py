"""How the API refuses a request: what a test expects, and the one form that every error has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass(frozen=True)
class Bad:
    """A request that must be refused, and how."""

    status: int
    code: str
    wrong: str = ""
    method: str = "POST"
    path: str = "/v1/jobs"
    request: dict[str, Any] = field(default_factory=dict)


def wrong_field(name: str) -> Bad:
    """How a wrong field is refused."""
    return Bad(422, "invalid_request", name)


def check(response: httpx.Response, bad: Bad) -> None:
    """Check that a request was refused as it should be, in the one form that errors have."""
    problem = response.json()
    assert (response.status_code, problem["code"]) == (bad.status, bad.code), response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    assert problem["status"] == response.status_code
    assert problem["request_id"] == response.headers["X-Request-Id"] != ""
    assert problem["instance"] == response.request.url.path
    assert problem["title"]
    assert problem["detail"]
    assert "Traceback" not in response.text
    assert "/api/" not in response.text
    assert [wrong["field"] for wrong in problem["errors"]] == [bad.wrong] * bool(bad.wrong)
    assert bad.wrong in problem["detail"]
