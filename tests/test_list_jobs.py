"""GET /v1/jobs: pages of jobs, newest first, with filters."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

import pytest

from tests.api_alone import api_alone
from tests.conftest import Service, png
from tests.scripted_jobs import accepted

WAV = b"RIFF\x24\0\0\0WAVEfmt "
FORMS: list[tuple[dict[str, str], bytes]] = [
    ({"type": "ocr"}, png()),
    ({"type": "vqa", "params": '{"question": "?"}'}, png()),
    ({"type": "asr"}, WAV),
]
COUNT = 23


@pytest.fixture(scope="module")
def api(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An API without workers over an empty database."""
    with api_alone(valkey, tmp_path_factory.mktemp("api")) as service:
        yield service


@pytest.fixture(scope="module")
def ids(api: Service) -> list[str]:
    """Jobs of all types, newest first."""
    assert api.http.get("/v1/jobs").json() == {
        "object": "list",
        "data": [],
        "has_more": False,
        "first_id": None,
        "last_id": None,
    }
    made = [
        accepted(api.http.post("/v1/jobs", data=fields, files={"file": file}))["id"]
        for fields, file in islice(cycle(FORMS), COUNT)
    ]
    return sorted(made, reverse=True)


def page(api: Service, **query: Any) -> dict[str, Any]:
    """One page of the list."""
    response = api.http.get("/v1/jobs", params=query)
    assert response.status_code == 200, response.text
    return dict(response.json())


def walk(api: Service, **query: Any) -> Iterator[dict[str, Any]]:
    """Every page, as a client goes through them."""
    found = page(api, **query)
    yield found
    while found["has_more"]:
        found = page(api, after=found["last_id"], **query)
        yield found


@pytest.mark.parametrize("limit", [1, 5, 22, 23, 24, 100])
def test_a_walk_meets_every_job_once(api: Service, ids: list[str], limit: int) -> None:
    """Pages join without gap or double, newest first, and the last one says that it is."""
    pages = list(walk(api, limit=limit))

    assert [job["id"] for one in pages for job in one["data"]] == ids
    assert [len(one["data"]) for one in pages[:-1]] == [limit] * (len(pages) - 1)
    assert all((one["first_id"], one["last_id"]) == (one["data"][0]["id"], one["data"][-1]["id"]) for one in pages)


def test_a_page_has_twenty_jobs_unless_told(api: Service, ids: list[str]) -> None:
    """`limit` is 20 by default; jobs look as they do alone, but for result and queue."""
    first = page(api)

    assert ([job["id"] for job in first["data"]], first["has_more"]) == (ids[:20], True)
    alone = api.job(ids[0])
    del alone["queue"]
    assert first["data"][0] == alone


def test_jobs_that_arrive_in_between_shift_nothing(api: Service, ids: list[str]) -> None:
    """A walk goes on behind the job it had reached, whatever is new at the front or deleted."""
    first = page(api, limit=5)
    new = accepted(api.submit())["id"]
    second = page(api, limit=5, after=first["last_id"])
    api.http.delete(f"/v1/jobs/{new}")

    assert [job["id"] for job in second["data"]] == ids[5:10]


@pytest.mark.parametrize("job_type", ["ocr", "vqa", "asr"])
def test_the_list_can_be_of_one_type(api: Service, ids: list[str], job_type: str) -> None:
    """`type` keeps the jobs of one type, page by page."""
    of_type = [i for i in ids if api.job(i)["type"] == job_type]

    assert [job["id"] for one in walk(api, type=job_type, limit=3) for job in one["data"]] == of_type
    assert len(of_type) in (7, 8)


def test_the_list_can_be_of_one_status(api: Service, ids: list[str]) -> None:
    """`status` keeps the jobs that are in it now; filters add up."""
    for job_id in ids[3:6]:
        api.http.post(f"/v1/jobs/{job_id}/cancel")
    cancelled = [job["id"] for one in walk(api, status="cancelled", limit=2) for job in one["data"]]
    both = page(api, status="cancelled", type="ocr")["data"]

    assert cancelled == ids[3:6]
    assert len(page(api, status="queued", limit=100)["data"]) == COUNT - 3
    assert page(api, status="failed")["data"] == []
    assert [(job["type"], job["status"]) for job in both] == [("ocr", "cancelled")]


def test_a_list_leaves_out_what_may_be_long(api: Service) -> None:
    """A schema or a conversation is shown with its job alone: a page of a hundred jobs stays small."""
    params = '{"question": "?", "response_schema": {"type": "object"}}'
    job = accepted(api.submit("vqa", params=params))
    try:
        (listed,) = [one for one in api.http.get("/v1/jobs").json()["data"] if one["id"] == job["id"]]

        assert listed["params"]["question"] == "?"
        assert "response_schema" not in listed["params"]
        assert api.job(job["id"])["params"]["response_schema"] == {"type": "object"}
    finally:
        api.http.delete(f"/v1/jobs/{job['id']}")
