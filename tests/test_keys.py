"""Bearer keys: made, listed and revoked by `phi4 keys`, and asked for on every route that is not free."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.embedded import EmbeddedValkey
from cli.main import app as command
from phi4.errors import Unprotected
from phi4.store import Store
from tests.api_alone import answers, api_alone
from tests.conftest import Service, eventually, make_service
from tests.keyed_app import JOB, Keyed, concrete, keyed, make_app
from tests.making_jobs import raw

#: Routes for those who have no key: whether the service lives, and how to use it.
FREE = {"/", "/docs", "/docs/<any('swagger-ui.css', 'swagger-ui-bundle.js', 'favicon-32x32.png'):name>"}
FREE |= {"/openapi.json", "/livez", "/readyz", "/health", "/console/<version_asked>/<name>"}

Phi4 = Callable[..., Result]


@pytest.fixture
def phi4(store: Store, tmp_path: Path) -> Phi4:
    """`phi4 keys …` over the test's store."""
    where = raw(store).connection_pool.connection_kwargs
    url = f"redis://:{where['password']}@{where['host']}:{where['port']}/{where['db']}"
    env = {"REDIS_URL": url, "PHI4_DATA_DIR": str(tmp_path)}
    return lambda *words: CliRunner().invoke(command, ["keys", *words], env=env)


@pytest.fixture
def two(store: Store, tmp_path: Path) -> Keyed:
    """An application with two keys."""
    return keyed(store, tmp_path, acme={}, revoked={"owner": "acme"})


# -- the command


def test_a_key_is_shown_once_and_kept_hashed(phi4: Phi4, store: Store) -> None:
    """Stdout is the key and nothing else; nothing in Redis gives it away."""
    made = phi4("create", "acme")

    token = made.stdout.removesuffix("\n")
    assert made.exit_code == 0
    assert len(token) == len("phi4_") + 12 + 1 + 43
    kept = json.dumps([raw(store).hgetall(name) for name in raw(store).keys("*")])
    secret = token.rsplit("_", 1)[-1]
    assert token[:17] in kept
    assert token not in kept
    assert secret not in kept
    assert token not in phi4("list").stdout + phi4("list", "--json").stdout


def test_keys_are_listed_with_owner_limits_and_times(phi4: Phi4) -> None:
    """One JSON object a line, revoked ones too; the table says the same."""
    made = phi4("create", "ci", "--owner", "acme", "--admin", "--requests-per-minute", "60", "--in-flight-pages", "9")
    phi4("create", "other")
    phi4("revoke", made.stdout[:17])

    first, second = map(json.loads, phi4("list", "--json").stdout.splitlines())
    assert first["id"] == made.stdout[:17]
    assert first["revoked_at"] >= first["created_at"]
    assert {k: first[k] for k in ("name", "owner", "admin", "requests_per_minute", "in_flight_pages")} == {
        "name": "ci",
        "owner": "acme",
        "admin": True,
        "requests_per_minute": 60,
        "in_flight_pages": 9,
    }
    assert (second["owner"], second["in_flight_seconds"], second["revoked_at"]) == ("other", None, None)
    assert "60 requests/min, 9 pages" in phi4("list").stdout


def test_every_answer_about_keys_can_be_json(phi4: Phi4) -> None:
    """One object each, on stdout."""
    made = json.loads(phi4("create", "ci", "--owner", "acme", "--json").stdout)
    secret = json.loads(phi4("webhook-secret", "acme", "--json").stdout)
    revoked = json.loads(phi4("revoke", made["id"], "--json").stdout)

    assert (made["key"][:17], made["owner"]) == (made["id"], "acme")
    assert secret == {"owner": "acme", "secret": phi4("webhook-secret", "acme").stdout.strip()}
    assert revoked == {"id": made["id"], "revoked": True}


def test_revoking_what_is_not_there_says_so(phi4: Phi4) -> None:
    """Exit code 1, and how to find the ids."""
    result = phi4("revoke", "phi4_000000000000")

    assert (result.exit_code, "phi4 keys list" in result.stderr) == (1, True)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a|b", "../x", "-a", "a" * 65, "naïve", "a\nb"])
def test_a_name_that_would_confuse_others_is_refused(phi4: Phi4, name: str) -> None:
    """Names become parts of Redis keys and of log lines."""
    assert phi4("create", "--", name).exit_code == 2
    assert phi4("create", "fine", "--owner", name).exit_code == 2
    assert phi4("webhook-secret", "--", name).exit_code == 2


def test_a_webhook_secret_is_made_once_and_rotated_on_demand(phi4: Phi4, store: Store) -> None:
    """The same until it is rotated; then the one before signs beside it, for a day."""
    first = phi4("webhook-secret", "acme").stdout.strip()
    again = phi4("webhook-secret", "acme").stdout.strip()
    second = phi4("webhook-secret", "acme", "--rotate").stdout.strip()

    assert first == again != second
    assert all(s.startswith("whsec_") for s in (first, second))
    assert store.access.webhook_secrets("acme") == [second, first]
    assert store.access.webhook_secrets("other") == []
    assert 0 < raw(store).ttl("phi4:old_webhook_secret:acme") <= 86_400


def test_an_owner_without_a_key_may_be_a_slip(phi4: Phi4, store: Store) -> None:
    """The secret is made all the same, and stdout holds it alone; owners of keys cause no word."""
    store.access.create("scanner", "acme")

    slip, meant = phi4("webhook-secret", "acne"), phi4("webhook-secret", "acme")

    assert (slip.exit_code, slip.stdout.count("\n")) == (0, 1)
    assert "No key belongs to 'acne'" in slip.stderr
    assert (meant.exit_code, meant.stderr) == (0, "")


def test_the_secret_of_a_service_without_keys_is_a_setting(phi4: Phi4) -> None:
    """`local` is signed for with PHI4_WEBHOOK_SECRET; a second one would only confuse."""
    result = phi4("webhook-secret", "local")

    assert result.exit_code == 2
    assert "PHI4_WEBHOOK_SECRET" in result.stderr


def test_keys_are_made_in_the_embedded_valkey_whether_it_runs_or_not(tmp_path: Path) -> None:
    """Before the service runs, while it does, and after: the same keys."""

    def phi4(*words: str) -> list[str]:
        result = CliRunner().invoke(command, ["keys", *words], env={"PHI4_DATA_DIR": str(tmp_path)})
        assert result.exit_code == 0, result.output
        return result.stdout.splitlines()

    phi4("create", "before")
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        process = subprocess.Popen(valkey.child().argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually(valkey.answers, what="Valkey's first answer")
        phi4("create", "meanwhile")
        process.terminate()
        process.wait(10)

    assert [json.loads(line)["name"] for line in phi4("list", "--json")] == ["before", "meanwhile"]


# -- what a key opens


def test_every_route_asks_for_a_key_but_the_free_ones(two: Keyed) -> None:
    """Whatever routes there are, and whatever will be added; also where there is none."""
    stranger = two.app.test_client()
    for rule in two.app.url_map.iter_rules():
        path = concrete(rule.rule, **(dict.fromkeys(rule.arguments, "x") | {"name": "swagger-ui.css"}))
        for method in (rule.methods or set()) - {"OPTIONS"}:
            with closing(stranger.open(path, method=method)) as answer:
                assert (answer.status_code == 401) == (rule.rule not in FREE), (method, rule.rule)

    assert stranger.get("/v1/nothing").status_code == 401
    assert two.client("acme").get("/v1/nothing").status_code == 404


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer phi4_000000000000_" + "A" * 43,  # no such key
        "Bearer {id}_" + "A" * 43,  # such a key, but another's secret
        "Bearer {token}x",
        "Bearer {id}",
        "Basic {token}",
        "{token}",
        "Bearer {revoked}",
        "Bearer " + "x" * 8_000,
        "Bearer phi4_\xe9",
    ],
)
def test_all_that_is_not_a_valid_key_is_refused_alike(two: Keyed, tmp_path: Path, header: str | None) -> None:
    """The answer tells nobody which keys exist."""
    token = two.tokens["acme"]
    two.store.access.revoke(two.tokens["revoked"][:17])
    app = make_app(two.store, tmp_path)
    given = header and header.format(token=token, id=token[:17], revoked=two.tokens["revoked"])

    answer = app.test_client().get("/v1/jobs", headers={} if given is None else {"Authorization": given})

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="phi4"'
    problem = answer.get_json()
    assert (problem["code"], problem["detail"]) == ("unauthorized", "Send a valid key: `Authorization: Bearer phi4_…`.")


@pytest.mark.parametrize("header", ["Bearer {token}", "bearer {token}", "BEARER  {token} "])
def test_a_key_is_sent_as_a_bearer_token(two: Keyed, header: str) -> None:
    """The scheme's case and spaces around the key do not matter."""
    given = {"Authorization": header.format(token=two.tokens["acme"])}

    assert two.app.test_client().get("/v1/jobs", headers=given).status_code == 200


def test_health_tells_a_stranger_a_word_and_a_key_the_details(two: Keyed) -> None:
    """Queues, workers and limits are nobody else's business."""
    assert two.app.test_client().get("/health").get_json() == {"status": "degraded"}
    assert two.client("acme").get("/health").get_json().keys() >= {
        "status",
        "queues",
        "workers",
        "ended",
        "webhooks",
        "limits",
    }


def test_a_revoked_key_is_refused_by_a_running_service(valkey: str, tmp_path: Path) -> None:
    """A key made later opens it, and revoking the last one closes it rather than opening it to all."""
    with api_alone(valkey, tmp_path) as service:
        assert service.http.get("/v1/jobs").status_code == 200, "without keys, for this machine alone"
        access = Store.at(service.redis_url).access
        token, made = access.create("acme", "acme")
        eventually(lambda: service.http.get("/v1/jobs").status_code == 401, what="the first key's closing the service")
        service.http.headers["Authorization"] = f"Bearer {token}"
        assert service.http.get("/v1/jobs").status_code == 200

        assert access.revoke(made.id)

        eventually(lambda: service.http.get("/v1/jobs").status_code == 401, what="the end of a revoked key")
        del service.http.headers["Authorization"]
        assert service.http.get("/v1/jobs").status_code == 401


def test_the_command_sends_the_key_of_its_environment(valkey: str, tmp_path: Path) -> None:
    """PHI4_API_KEY; without it, it says what is missing."""
    with api_alone(valkey, tmp_path) as service:
        token, _ = Store.at(service.redis_url).access.create("acme", "acme")
        eventually(lambda: service.http.get("/v1/jobs").status_code == 401, what="the key's being known")

        def phi4(**env: str) -> Result:
            return CliRunner().invoke(command, ["jobs", "list"], env={"PHI4_URL": str(service.http.base_url)} | env)

        assert phi4(PHI4_API_KEY=f"{token}\n").exit_code == 0
        refused = phi4(PHI4_API_KEY="")

    assert refused.exit_code == 1
    assert "PHI4_API_KEY" in refused.stderr


# -- without keys


@pytest.fixture
def exposed(valkey: str, tmp_path: Path) -> Iterator[Service]:
    """A service that listens on every address, not started yet."""
    url = valkey.removesuffix("/0") + "/11"
    Store.at(url).client.flushdb()
    service = make_service(url, tmp_path, PHI4_HOST="0.0.0.0")
    yield service
    service.http.close()


def test_without_keys_no_stranger_can_reach_the_service(exposed: Service) -> None:
    """It refuses to start where strangers could; the message says what to do."""
    process = exposed.start("api", "api")

    assert process.wait(30) != 0
    message = exposed.output("api")
    assert "phi4 keys create" in message
    assert "PHI4_ALLOW_ANONYMOUS=1" in message


def test_with_a_key_the_service_may_be_reached_by_all(exposed: Service) -> None:
    """They need the key."""
    Store.at(exposed.redis_url).access.create("acme", "acme")
    exposed.start("api", "api")
    eventually(lambda: answers(exposed), what="the API's first answer")

    assert exposed.http.get("/v1/jobs").status_code == 401
    assert exposed.stop_all() == {"api": 0}


def test_strangers_are_let_in_when_told_so_in_so_many_words(store: Store, tmp_path: Path) -> None:
    """PHI4_ALLOW_ANONYMOUS=1 opens a service without keys; a key closes it all the same."""
    with pytest.raises(Unprotected):
        make_app(store, tmp_path, host="0.0.0.0")

    client = make_app(store, tmp_path, host="0.0.0.0", allow_anonymous=True).test_client()
    assert client.get("/v1/jobs", headers={"Host": "ocr.example.com"}).status_code == 200
    store.access.create("acme", "acme")
    closed = make_app(store, tmp_path, host="0.0.0.0", allow_anonymous=True).test_client()
    assert closed.get("/v1/jobs").status_code == 401


def test_where_a_containers_port_is_published_decides(store: Store, tmp_path: Path) -> None:
    """Inside, it listens on every address; on loopback outside it serves this machine alone, elsewhere nobody."""
    with pytest.raises(Unprotected, match=r"PHI4_PUBLISH='0\.0\.0\.0'"):
        make_app(store, tmp_path, host="0.0.0.0", publish="0.0.0.0")

    client = make_app(store, tmp_path, host="0.0.0.0", publish="127.0.0.1").test_client()
    assert client.get("/v1/jobs", headers={"Host": "127.0.0.1:8000"}).status_code == 200
    assert client.get("/v1/jobs", headers={"Host": "evil.example:8000"}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example:8000"},  # a name of the attacker's that leads to this machine
        {"Host": "127.0.0.1.evil.example"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:9999"},
    ],
)
def test_a_strangers_page_cannot_use_a_service_without_keys(
    store: Store, tmp_path: Path, headers: dict[str, str]
) -> None:
    """A browser on this machine sends whatever a page tells it to; such requests are known by Host and Origin."""
    client = make_app(store, tmp_path).test_client()

    refused = client.post("/v1/jobs", json=JOB, headers=headers)

    assert (refused.status_code, refused.get_json()["code"]) == (403, "forbidden")
    assert store.jobs.newest("local", limit=1) == ([], False)
    assert client.post("/v1/jobs", json=JOB, headers={"Origin": "http://localhost"}).status_code == 202


# -- pages and proxies


def test_only_pages_of_listed_origins_may_read_answers(store: Store, tmp_path: Path) -> None:
    """By default none; a preflight needs no key, and what only looks like a listed origin is not."""
    token, _ = store.access.create("acme", "acme")
    key = {"Authorization": f"Bearer {token}"}
    listed = make_app(store, tmp_path, cors_origins="https://app.example.com").test_client()
    allowed = "Access-Control-Allow-Origin"

    answer = listed.get("/v1/jobs", headers=key | {"Origin": "https://app.example.com"})
    assert (answer.status_code, answer.headers[allowed]) == (200, "https://app.example.com")
    preflight = {"Origin": "https://app.example.com", "Access-Control-Request-Method": "POST"}
    asked = listed.options("/v1/jobs", headers=preflight | {"Access-Control-Request-Headers": "authorization"})
    assert (asked.status_code, asked.headers[allowed]) == (200, "https://app.example.com")
    assert asked.headers["Access-Control-Allow-Headers"] == "authorization"
    assert "Access-Control-Allow-Credentials" not in asked.headers
    for origin in ("https://app.example.com.evil.example", "https://appXexample.com", "http://app.example.com"):
        assert allowed not in listed.get("/v1/jobs", headers=key | {"Origin": origin}).headers
    unlisted = make_app(store, tmp_path).test_client()
    assert allowed not in unlisted.get("/v1/jobs", headers=key | {"Origin": "https://app.example.com"}).headers


@pytest.mark.parametrize(("proxies", "client"), [(0, "127.0.0.1"), (1, "203.0.113.7"), (2, "198.51.100.9")])
def test_only_as_many_proxies_as_stated_speak_for_the_client(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture, proxies: int, client: str
) -> None:
    """The log names who was refused; what stands further left in the header was written by anybody."""
    store.access.create("acme", "acme")
    app = make_app(store, tmp_path, trusted_proxies=proxies)

    with caplog.at_level("WARNING"):
        app.test_client().get("/v1/jobs", headers={"X-Forwarded-For": "1.1.1.1, 198.51.100.9, 203.0.113.7"})

    assert [r.phi4_fields["client"] for r in caplog.records if r.message == "refused"] == [client]  # type: ignore[attr-defined]
