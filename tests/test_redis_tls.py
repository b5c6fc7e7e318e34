"""The whole service over `rediss://`: encrypted, with a password, and only to the server that was meant."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from phi4.errors import StoreUnavailable
from phi4.queue import Tickets, celery_app
from phi4.store import Store
from tests.conftest import make_service, pdf
from tests.redis_over_tls import TlsRedis, tls_redis


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsRedis]:
    """One for all tests here."""
    with tls_redis(tmp_path_factory.mktemp("tls")) as server:
        yield server


def test_a_job_from_end_to_end(server: TlsRedis, tmp_path_factory: pytest.TempPathFactory) -> None:
    """API, both workers, tickets, events and health checks, all through TLS."""
    service = make_service(server.url(), tmp_path_factory.mktemp("service"))
    try:
        service.start_all("tests.engines:Scripted")
        job = service.submit(file=pdf(3)).json()
        ended = service.ended(job["id"])
        events = service.http.get(f"/v1/jobs/{job['id']}/events").text
    finally:
        codes = service.stop_all()
        service.http.close()

    assert len(ended["result"]["pages"]) == 3
    assert "event: result" in events
    assert codes == dict.fromkeys(codes, 0)
    assert "insecure" not in service.output("infer").lower()


@pytest.mark.parametrize("query", ["", "&ssl_cert_reqs=required"])
def test_a_server_with_a_certificate_of_a_stranger_is_not_spoken_to(server: TlsRedis, query: str) -> None:
    """Also when the URL says nothing of checking: neither the store nor the tickets."""
    url = server.url(authority=server.stranger, query=query)
    with pytest.raises(StoreUnavailable):
        Store.at(url)
    Tickets(celery_app(url)).wake("prepare")

    assert Store.at(server.url()).client.llen("prepare") == 0


def test_tickets_are_encrypted_without_any_parameter(server: TlsRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    """`rediss://` alone means TLS and a check against the authorities that the system trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(server.authority))
    url = server.url().partition("?")[0]
    Tickets(celery_app(url)).wake("prepare")
    client = Store.at(url).client

    assert client.llen("prepare") == 1
    client.delete("prepare")


def test_checking_can_be_turned_off_by_name(server: TlsRedis) -> None:
    """`ssl_cert_reqs=none` is for tests of one's own."""
    url = server.url(authority=server.stranger, query="&ssl_cert_reqs=none&ssl_check_hostname=false")
    Tickets(celery_app(url)).wake("prepare")
    client = Store.at(url).client

    assert client.llen("prepare") == 1
    client.delete("prepare")


def test_a_wrong_password_is_told_without_the_password(server: TlsRedis) -> None:
    """As an error of the store."""
    with pytest.raises(StoreUnavailable) as told:
        Store.at(server.url(password="wrong-one"))

    assert "wrong-one" not in str(told.value)
