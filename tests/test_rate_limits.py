"""How many requests a key may make in a minute, and what the answers say of it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from cli.embedded import EmbeddedValkey
from phi4.store import Store
from phi4.store.keys import PATTERNS
from tests.conftest import eventually
from tests.keyed_app import JOB, keyed
from tests.making_jobs import raw


def test_a_key_may_make_so_many_requests_a_minute(store: Store, tmp_path: Path) -> None:
    """Each answer says how many are left; the one too many is 429 and says when to come back, whatever it asked for."""
    client = keyed(store, tmp_path, acme={"requests_per_minute": 3}).client("acme")

    for left in (2, 1, 0):
        answer = client.get("/v1/jobs")
        assert answer.status_code == 200
        assert answer.headers["RateLimit-Policy"] == '"requests";q=3;w=60'
        assert re.fullmatch(rf'"requests";r={left};t=([1-9]|[1-5]\d|60)', answer.headers["RateLimit"])
    for refused in (client.get("/v1/jobs"), client.post("/v1/jobs", json=JOB), client.get("/v1/nothing")):
        assert (refused.status_code, refused.get_json()["code"]) == (429, "rate_limited")
        assert re.fullmatch(r'"requests";r=0;t=\d+', refused.headers["RateLimit"])
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert refused.headers["Retry-After"] == refused.headers["RateLimit"].rpartition("t=")[2]
    assert store.jobs.newest("acme", limit=1) == ([], False)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/ocr"])
def test_other_apis_are_told_the_same_time(store: Store, tmp_path: Path, path: str) -> None:
    """Their clients wait as long as `Retry-After` says, and give up when it was too short."""
    client = keyed(store, tmp_path, acme={"requests_per_minute": 1}).client("acme")
    assert client.get("/v1/jobs").status_code == 200

    refused = client.post(path, json={})

    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == refused.headers["RateLimit"].rpartition("t=")[2]
    assert "rate_limit" in refused.get_data(as_text=True)


def test_after_a_while_there_is_room_again(store: Store, tmp_path: Path) -> None:
    """The minute slides: when the counted requests are older, others may come."""
    client = keyed(store, tmp_path, acme={"requests_per_minute": 2}).client("acme")
    while client.get("/v1/jobs").status_code == 200:
        pass

    for name in raw(store).scan_iter(f"{PATTERNS['rate']}*"):
        raw(store).pexpire(name, 1)

    eventually(lambda: client.get("/v1/jobs").status_code == 200, what="room for a request")


def test_each_key_counts_for_itself(store: Store, tmp_path: Path) -> None:
    """Another key, of the same owner too, has its own minute, and one without a limit says nothing of any."""
    shop = keyed(
        store, tmp_path, one={"requests_per_minute": 1}, two={"owner": "one", "requests_per_minute": 1}, free={}
    )

    assert [shop.client("one").get("/v1/jobs").status_code for _ in range(2)] == [200, 429]
    assert shop.client("two").get("/v1/jobs").status_code == 200
    answers = [shop.client("free").get("/v1/jobs") for _ in range(5)]
    assert {a.status_code for a in answers} == {200}
    assert not {"RateLimit", "RateLimit-Policy"} & dict(answers[0].headers).keys()


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/docs", "/openapi.json"])
def test_free_routes_are_not_counted(store: Store, tmp_path: Path, path: str) -> None:
    """Also when the key is sent along."""
    client = keyed(store, tmp_path, acme={"requests_per_minute": 1}).client("acme")

    for _ in range(3):
        assert client.get(path).status_code in (200, 503)
    assert client.get("/v1/jobs").status_code == 200


def test_what_is_counted_goes_by_itself(store: Store, tmp_path: Path) -> None:
    """Every counter has a time to live, of two windows at most."""
    keyed(store, tmp_path, acme={"requests_per_minute": 5}).client("acme").get("/v1/jobs")

    counters = list(raw(store).scan_iter(f"{PATTERNS['rate']}*"))
    assert counters
    assert all(0 < raw(store).ttl(name) <= 120 for name in counters)


def test_without_its_store_nothing_is_let_through_uncounted(tmp_path: Path) -> None:
    """503 with Retry-After; not 500, and not as if there were no limit."""
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        process = subprocess.Popen(valkey.child().argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            eventually(valkey.answers, what="Valkey's first answer")
            client = keyed(Store.at(valkey.url), tmp_path, acme={"requests_per_minute": 5}).client("acme")
            assert client.get("/v1/jobs").status_code == 200
        finally:
            process.kill()
            process.wait(10)

    away = client.get("/v1/nothing")

    assert (away.status_code, away.get_json()["code"]) == (503, "store_unavailable")
    assert int(away.headers["Retry-After"]) > 0
