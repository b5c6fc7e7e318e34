"""The API as a process without workers: what it accepts stays queued, and nothing else is in its database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from phi4.store import Store
from tests.conftest import Service, eventually, make_service


@contextmanager
def api_alone(valkey: str, folder: Path, **env: str) -> Iterator[Service]:
    """Run an API over an empty database that no other fixture uses; it ends with 0 after SIGTERM."""
    url = valkey.removesuffix("/0") + "/15"
    Store.at(url).client.flushdb()
    service = make_service(url, folder, **env)
    service.start("api", "api")
    try:
        eventually(lambda: answers(service), what="the API's first answer")
        yield service
    finally:
        service.http.close()
        codes = service.stop_all()
    assert codes == {"api": 0}


def answers(service: Service) -> bool:
    """Whether /livez says that the process can answer."""
    try:
        return service.http.get("/livez").status_code == 200
    except httpx.TransportError:
        return False
