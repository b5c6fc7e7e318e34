"""A real Redis or Valkey server that takes TLS and a password only, with a certificate from an authority made here."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
import trustme

from cli.embedded import free_port
from tests.conftest import eventually

PASSWORD = "p/w:d@1"
PASSWORD_IN_URL = "p%2Fw%3Ad%401"


@dataclass(frozen=True)
class TlsRedis:
    """A running server."""

    port: int
    authority: Path  #: the certificate that signed the server's
    stranger: Path  #: one that did not

    def url(self, *, authority: Path | None = None, password: str = PASSWORD_IN_URL, query: str = "") -> str:
        """Its URL, with the authority to trust."""
        trusted = f"ssl_ca_certs={authority or self.authority}"
        return f"rediss://:{password}@127.0.0.1:{self.port}/0?{trusted}{query}"


@contextmanager
def tls_redis(folder: Path) -> Iterator[TlsRedis]:
    """Run a server; skips where there is none that speaks TLS."""
    program = shutil.which("valkey-server") or shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server or valkey-server on the path: the embedded one has no TLS")
    authority, stranger = folder / "authority.pem", folder / "stranger.pem"
    made = trustme.CA()
    made.cert_pem.write_to_path(authority)
    trustme.CA().cert_pem.write_to_path(stranger)
    certificate = made.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(folder / "server.pem")
    certificate.private_key_pem.write_to_path(folder / "server.key")
    server = TlsRedis(free_port(), authority, stranger)
    process = subprocess.Popen([program, "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stdin is not None
    process.stdin.write(_configuration(folder, server.port).encode())
    process.stdin.close()
    try:
        eventually(lambda: _answers(server, process), what="the answer of a Redis with TLS")
        yield server
    finally:
        process.terminate()
        process.wait(10)


def _configuration(folder: Path, port: int) -> str:
    lines = {
        "port": "0",
        "tls-port": str(port),
        "bind": "127.0.0.1",
        "tls-cert-file": str(folder / "server.pem"),
        "tls-key-file": str(folder / "server.key"),
        "tls-ca-cert-file": str(folder / "authority.pem"),
        "tls-auth-clients": "no",
        "requirepass": f'"{PASSWORD}"',
        "maxmemory-policy": "noeviction",
        "save": '""',
        "dir": str(folder),
    }
    return "".join(f"{name} {value}\n" for name, value in lines.items())


def _answers(server: TlsRedis, process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        pytest.skip("this redis-server was built without TLS")
    try:
        with redis.Redis.from_url(server.url()) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False
