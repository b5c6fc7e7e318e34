"""Requests to addresses that strangers chose: public hosts unless listed, resolved once, no redirects, capped."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import requests
from AntiSSRF import AntiSSRFError, AntiSSRFPolicy, PolicyConfigOptions
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from phi4 import __version__
from phi4.errors import FetchFailed, TooLarge, UrlForbidden

_CHUNK = 1 << 16
_CONNECT_S = 10.0


class Outgoing:
    """The only way out of the service. `allowed_hosts` may be reached although they are not public."""

    def __init__(self, allowed_hosts: frozenset[str]) -> None:
        self._allowed = allowed_hosts

    @contextmanager
    def request(self, method: str, url: str, *, seconds: float, **options: Any) -> Iterator[requests.Response]:
        """Send one request and give its response, unread; the connection is cut after `seconds` in all.

        Raises `UrlForbidden`; `FetchFailed` when nobody answers in time.
        """
        host, connect = self._check(url), min(_CONNECT_S, seconds)
        with self._session(host) as session, _Cutter(seconds) as cutter:
            cutter.guard(session)
            try:
                response = session.request(
                    method, url, timeout=(connect, seconds), allow_redirects=False, stream=True, **options
                )
            except AntiSSRFError:
                raise UrlForbidden(
                    f"{host} is not a public address; list it in PHI4_ALLOW_HOSTS to allow it."
                ) from None
            except (requests.RequestException, OSError, ValueError) as error:
                if cutter.has_connected and (cutter.over.is_set() or isinstance(error, requests.ReadTimeout)):
                    raise FetchFailed(f"{host} took too long to answer.") from None
                reason = "it took too long" if cutter.over.is_set() else _reason(error)
                raise FetchFailed(f"{host} could not be reached: {reason}.") from None
            with response:
                yield response

    def download(self, url: str, into: BinaryIO, *, most_bytes: int, seconds: float) -> str:
        """Write what `url` holds into a file; returns its declared content type.

        Raises `UrlForbidden`; `FetchFailed` for any answer but 200, and past `seconds`; `TooLarge` past `most_bytes`.
        """
        ends = time.monotonic() + seconds
        with self.request("GET", url, seconds=seconds, headers={"Accept-Encoding": "identity"}) as response:
            if 300 <= response.status_code < 400:
                raise FetchFailed("The URL redirects elsewhere; give the address it leads to.")
            if response.status_code != 200:
                raise FetchFailed(f"The URL answered {response.status_code}, not 200.")
            try:
                _copy(response, into, most_bytes=most_bytes)
            except requests.RequestException as error:
                if time.monotonic() < ends:
                    raise FetchFailed(f"The download broke off: {_reason(error)}.") from None
            # A body of unknown length that was cut looks like one that ended.
            if time.monotonic() >= ends:
                raise FetchFailed("The download took too long.")
            return response.headers.get("Content-Type", "")

    def _check(self, url: str) -> str:
        try:
            pieces = urlsplit(url)
            host = (pieces.hostname or "").lower()
            _ = pieces.port
        except ValueError:
            raise UrlForbidden("The URL cannot be read.") from None
        if pieces.scheme not in ("http", "https") or not host or pieces.username or pieces.password:
            raise UrlForbidden("Only http and https URLs with a host and without a password are used.")
        return host

    def _session(self, host: str) -> requests.Session:
        option = PolicyConfigOptions.NONE if host in self._allowed else PolicyConfigOptions.EXTERNAL_ONLY_LATEST
        policy = AntiSSRFPolicy(option)
        policy.allow_plain_text_http = True
        policy.add_xff_header = False
        session: requests.Session = policy.get_antissrf_session()
        session.trust_env = False  # a proxy from the environment would resolve the name again, unchecked
        session.headers["User-Agent"] = f"phi4-service/{__version__}"
        for scheme in ("http://", "https://"):
            _keep_port(session.get_adapter(scheme))
        return session


def _keep_port(adapter: Any) -> None:
    """Send the whole Host header: the library sets it to the name alone, and servers tell their hosts apart by it."""
    resolve = adapter.build_connection_pool_key_attributes

    def resolve_and_name(request: requests.PreparedRequest, *rest: Any, **more: Any) -> Any:
        resolved = resolve(request, *rest, **more)
        request.headers["Host"] = urlsplit(request.url or "").netloc
        return resolved

    adapter.build_connection_pool_key_attributes = resolve_and_name


class _Cutter:
    """Cuts every connection of a session when its time is over.

    The timeouts of the libraries count from one byte to the next, so a server that sends one now and then holds a
    thread for as long as it likes.
    """

    def __init__(self, seconds: float) -> None:
        self.over = threading.Event()
        self._handles: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> _Cutter:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        for handle in self._handles:
            handle.close()

    @property
    def has_connected(self) -> bool:
        """Whether there was anybody to cut off."""
        return bool(self._handles)

    def guard(self, session: requests.Session) -> None:
        """Watch over the connections that a session will open."""
        watch = self._watch

        class Plain(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                return watch(super()._new_conn())

        class Tls(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                return watch(super()._new_conn())

        plain = type("PlainPool", (HTTPConnectionPool,), {"ConnectionCls": Plain})
        tls = type("TlsPool", (HTTPSConnectionPool,), {"ConnectionCls": Tls})
        for adapter in session.adapters.values():
            assert isinstance(adapter, HTTPAdapter)
            adapter.poolmanager.pool_classes_by_scheme = {"http": plain, "https": tls}

    def _watch(self, connection: socket.socket) -> socket.socket:
        self._handles.append(connection.dup())  # a second handle: TLS takes the first one over
        if self.over.is_set():
            self._cut()
        return connection

    def _cut(self) -> None:
        self.over.set()
        for handle in self._handles:
            with suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)


def _copy(response: requests.Response, into: BinaryIO, *, most_bytes: int) -> None:
    length = 0
    for chunk in response.iter_content(_CHUNK):
        length += len(chunk)
        if length > most_bytes:
            raise TooLarge(f"The file behind the URL is larger than {most_bytes >> 20} MB.")
        into.write(chunk)


def _reason(error: Exception) -> str:
    """Say in a few words what went wrong, without addresses."""
    if isinstance(error, requests.Timeout):
        return "it took too long"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not valid"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    if isinstance(error, socket.gaierror):
        return "no address is known for that name"
    return type(error).__name__
