"""Nobody reaches an address that is not public through this service, and nobody holds a thread of it."""

from __future__ import annotations

import gzip
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from phi4.errors import FetchFailed, InputError, TooLarge, UrlForbidden
from tests.conftest import eventually
from tests.servers import Reply, Request, Web, dripping, web
from worker.outgoing import Outgoing

LISTED = frozenset({"127.0.0.1"})
SECONDS = 20.0


@pytest.fixture
def server() -> Iterator[Web]:
    """A web server on loopback."""
    with web() as running:
        yield running


@pytest.fixture
def loopback_tells() -> Iterator[tuple[int, list[object]]]:
    """A port open on every loopback address, and who connected to it."""
    connected: list[object] = []
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, address = listener.accept()
                except OSError:
                    return
                connected.append(address)
                connection.close()

        thread = threading.Thread(target=accept)
        thread.start()
        yield listener.getsockname()[1], connected
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def fetch(url: str, *, allowed: frozenset[str] = frozenset(), most: int = 1 << 20, seconds: float = SECONDS) -> bytes:
    """Download something."""
    into = io.BytesIO()
    Outgoing(allowed).download(url, into, most_bytes=most, seconds=seconds)
    return into.getvalue()


# -- where one may not go


NOT_PUBLIC = [
    *("127.0.0.1", "127.8.8.8", "localhost", "LOCALHOST", "0.0.0.0", "10.0.0.1", "172.16.0.1"),
    *("172.31.255.254", "192.168.1.1", "100.64.0.1", "169.254.169.254", "169.254.0.1", "168.63.129.16"),
    *("192.0.0.192", "198.18.0.1", "224.0.0.1", "255.255.255.255"),
    # The same in other spellings
    *("2130706433", "017700000001", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "127.0.1", "0"),
    *("2852039166", "0xa9.0xfe.0xa9.0xfe"),
    # IPv6, also with an IPv4 address inside
    *("[::1]", "[0:0:0:0:0:0:0:1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:10.0.0.1]"),
    *("[::ffff:169.254.169.254]", "[64:ff9b::7f00:1]", "[64:ff9b::a9fe:a9fe]", "[2002:7f00:1::]", "[fe80::1]"),
    *("[fc00::1]", "[fd00:ec2::254]", "[ff02::1]"),
]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", NOT_PUBLIC)
def test_an_address_that_is_not_public_is_not_reached(
    scheme: str, host: str, loopback_tells: tuple[int, list[object]]
) -> None:
    """Whatever it is spelled like; the message tells how to allow it."""
    port, connected = loopback_tells
    with pytest.raises(UrlForbidden, match="PHI4_ALLOW_HOSTS"):
        fetch(f"{scheme}://{host}:{port}/")
    assert connected == []


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_name_that_changes_its_mind_leads_nowhere_else(
    method: str, monkeypatch: pytest.MonkeyPatch, loopback_tells: tuple[int, list[object]]
) -> None:
    """Public when it is checked, loopback when it is used: it is asked once, and the first answer counts."""
    port, connected = loopback_tells
    asked = _resolver(monkeypatch, lambda times: "192.0.2.1" if times == 1 else "127.0.0.1")

    with pytest.raises(InputError), Outgoing(frozenset()).request(method, f"http://a.example:{port}/", seconds=0.5):
        pass

    assert asked.count("a.example") == 1
    assert connected == []


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1"])
def test_a_name_with_one_address_that_is_not_public_is_refused(
    address: str, monkeypatch: pytest.MonkeyPatch, loopback_tells: tuple[int, list[object]]
) -> None:
    """Whatever else it has."""
    port, connected = loopback_tells
    _resolver(monkeypatch, lambda _: address)

    with pytest.raises(UrlForbidden, match="PHI4_ALLOW_HOSTS"):
        fetch(f"http://a.example:{port}/")
    assert connected == []


def _resolver(monkeypatch: pytest.MonkeyPatch, answer: Callable[[int], str]) -> list[str]:
    """Answer for a name of the test's; gives the names that are looked up."""
    asked: list[str] = []
    resolve = socket.getaddrinfo

    def answered(host: Any, *more: Any, **options: Any) -> Any:
        if host != "a.example":
            return resolve(host, *more, **options)
        asked.append(host)
        return resolve(answer(len(asked)), *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", answered)
    return asked


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "file://localhost/etc/passwd",
        "ftp://127.0.0.1/x",
        "gopher://127.0.0.1:6379/_x",
        "dict://127.0.0.1:6379/info",
        "data:text/plain,x",
        "unix:///var/run/docker.sock",
        "javascript:alert(1)",
        "//127.0.0.1/",
        "127.0.0.1",
        "/etc/passwd",
        "",
        " ",
        "http://",
        "http:///path",
        "http:127.0.0.1",
        "http://:80/",
        "http://user:word@127.0.0.1/",
        "http://user@127.0.0.1/",
        "http://:word@127.0.0.1/",
        "http://127.0.0.1\\@a.example/",
        "http://a.example\\@127.0.0.1/",
        "http://127.0.0.1:80@a.example/",
        "http://[::1/",
        "http://127.0.0.1:port/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1\u2100a.example/",
    ],
)
def test_only_plain_web_addresses_are_used(url: str) -> None:
    """No other schemes, no names and passwords in the URL, also for hosts that are listed."""
    with pytest.raises(UrlForbidden):
        fetch(url, allowed=LISTED)


@pytest.mark.parametrize(
    "host",
    [
        *("[fe80::1%25lo]", "[::1%25lo]", "127.0.0.1%00", "127.0.0.1%2f", "127.0.0.1 ", "127.0.0.1.", "[v1.x]"),
        *("a..b", "-", "x" * 300, "*", "\x00"),
        # Letters and digits that look alike
        *("127\u30020\u30020\u30021", "\uff11\uff12\uff17.0.0.1", "\u2460\u2461\u2466.0.0.1", "loc\u24d0lhost"),
    ],
)
def test_a_host_that_makes_no_sense_leads_nowhere(host: str, loopback_tells: tuple[int, list[object]]) -> None:
    """It is refused or not found, in this project's words."""
    port, connected = loopback_tells
    with pytest.raises(InputError):
        fetch(f"http://{host}:{port}/")
    assert connected == []


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1\t.a.example:{port}/",
        "http://127.0.0.1\n@[::1]:{port}/",
        "http://127.0.0.1#@[::1]:{port}/",
        "http://127.0.0.1?@[::1]:{port}/",
        "http://127.0.0.1/@[::1]:{port}/",
        "http://127.0.0.1;@[::1]:{port}/",
        "http://[::1]:{port}/?http://127.0.0.1/",
        "http://127.0.0.2:{port}/",
        "http://127.0.0.10:{port}/",
        "http://localhost:{port}/",
    ],
)
def test_a_listed_host_lets_no_other_in(url: str, loopback_tells: tuple[int, list[object]]) -> None:
    """However the URL plays with what different readers take for the host."""
    port, connected = loopback_tells
    with pytest.raises(InputError):
        fetch(url.format(port=port), allowed=LISTED)
    assert connected == []


def test_a_proxy_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch, server: Web) -> None:
    """It would resolve the name again, unchecked."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, server.url)
    with pytest.raises(UrlForbidden):
        fetch("http://10.0.0.1/")
    assert server.seen == []


def test_passwords_kept_on_this_machine_are_not_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, server: Web
) -> None:
    """The requests library reads `.netrc` unless told not to."""
    netrc = tmp_path_factory.mktemp("home") / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password something\n")
    monkeypatch.setenv("NETRC", str(netrc))
    fetch(server.url, allowed=LISTED)
    assert [r.headers.get("authorization") for r in server.seen] == [None]


# -- what comes back


def test_a_listed_host_is_reached(server: Web) -> None:
    """The file is written as it came, and its declared type is told."""
    server.answer = lambda _: Reply(body=b"data", headers={"Content-Type": "image/png"})
    into = io.BytesIO()
    content_type = Outgoing(LISTED).download(f"{server.url}/a?b=c#d", into, most_bytes=4, seconds=SECONDS)
    assert (into.getvalue(), content_type) == (b"data", "image/png")
    assert [(r.method, r.path) for r in server.seen] == [("GET", "/a?b=c")]
    assert "x-forwarded-for" not in server.seen[0].headers


def test_a_host_is_listed_by_its_name_in_any_case(server: Web) -> None:
    """The list is in small letters."""
    port = server.url.rsplit(":", 1)[1]
    assert fetch(f"http://LocalHost:{port}/", allowed=frozenset({"localhost"})) == b""


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(server: Web, status: int) -> None:
    """Or a public address could lead to one that is not."""
    server.answer = lambda _: Reply(status, headers={"Location": f"{server.url}/secret"})
    with pytest.raises(FetchFailed, match="redirects"):
        fetch(server.url, allowed=LISTED)
    assert [r.path for r in server.seen] == ["/"]


@pytest.mark.parametrize("status", [204, 206, 400, 401, 404, 500, 503])
def test_any_answer_but_200_is_a_failure(server: Web, status: int) -> None:
    """The number is told."""
    server.answer = lambda _: Reply(status)
    with pytest.raises(FetchFailed, match=str(status)):
        fetch(server.url, allowed=LISTED)


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "5000000"}, {"Connection": "close", "Content-Length": ""}])
def test_a_body_over_the_cap_is_not_read_on(server: Web, headers: dict[str, str]) -> None:
    """Whatever length it declares; not much more than the cap is written."""
    server.answer = lambda _: Reply(body=bytes(3 << 20), headers={k: v for k, v in headers.items() if v})
    into = io.BytesIO()
    with pytest.raises(TooLarge, match="1 MB"):
        Outgoing(LISTED).download(server.url, into, most_bytes=1 << 20, seconds=SECONDS)
    assert len(into.getvalue()) <= 1 << 20


def test_a_body_that_unpacks_to_more_than_the_cap_is_not_read_on(server: Web) -> None:
    """What counts is what would be written."""
    server.answer = lambda _: Reply(body=gzip.compress(bytes(50 << 20)), headers={"Content-Encoding": "gzip"})
    into = io.BytesIO()
    with pytest.raises(TooLarge):
        Outgoing(LISTED).download(server.url, into, most_bytes=1 << 20, seconds=SECONDS)
    assert len(into.getvalue()) <= 1 << 20


def test_a_body_that_breaks_off_is_a_failure(server: Web) -> None:
    """Half a file is no file."""
    server.answer = lambda _: Reply(body=b"half", headers={"Content-Length": "8"})
    with pytest.raises(FetchFailed, match="broke off"):
        fetch(server.url, allowed=LISTED)


def test_a_body_that_is_not_what_it_says_is_a_failure(server: Web) -> None:
    """Packed bytes that do not unpack."""
    server.answer = lambda _: Reply(body=b"not gzip", headers={"Content-Encoding": "gzip"})
    with pytest.raises(FetchFailed, match="broke off"):
        fetch(server.url, allowed=LISTED)


def test_nobody_listening_is_a_failure_without_addresses() -> None:
    """The message names the host as the caller wrote it, and no more."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(FetchFailed) as failed:
        fetch(f"http://127.0.0.1:{port}/", allowed=LISTED)
    assert failed.value.message == "127.0.0.1 could not be reached: no connection."


def test_a_name_that_nobody_knows_is_told_as_such() -> None:
    """`.invalid` never has an address (RFC 2606)."""
    with pytest.raises(FetchFailed) as failed:
        fetch("http://nowhere.invalid/")
    assert failed.value.message == "nowhere.invalid could not be reached: no address is known for that name."


def test_something_that_is_not_http_is_a_failure() -> None:
    """Redis, for one."""
    with dripping(b"-ERR unknown command\r\n") as port, pytest.raises(FetchFailed, match="could not be reached"):
        fetch(f"http://127.0.0.1:{port}/", allowed=LISTED, seconds=0.5)


@pytest.mark.parametrize(
    ("scheme", "head"),
    [
        ("http", b""),
        ("http", b"HTTP/1.1 200 OK\r\nX-Header: "),
        ("http", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"),
        ("http", b"HTTP/1.1 200 OK\r\n\r\n"),
        ("http", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n"),
        ("https", b""),
        ("https", b"\x16\x03\x03\x40\x00"),
    ],
)
def test_a_server_that_goes_on_sending_slowly_is_cut_off(scheme: str, head: bytes) -> None:
    """The time is for the whole: greeting, headers and body. Each would else go on for longer than a test may run."""
    with dripping(head) as port, pytest.raises(FetchFailed):
        fetch(f"{scheme}://127.0.0.1:{port}/", allowed=LISTED, seconds=0.5)


def test_a_server_that_says_nothing_is_cut_off() -> None:
    """It was reached, and the reason is told."""
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(FetchFailed) as failed:
        fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/", allowed=LISTED, seconds=0.3)
    assert failed.value.message == "127.0.0.1 took too long to answer."


def test_an_answer_may_take_longer_than_connecting(server: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has to be quick is only the handshake; an answer has all the time there is."""
    monkeypatch.setattr("worker.outgoing._CONNECT_S", 0.2)

    def late(_: Request) -> Reply:
        time.sleep(0.6)
        return Reply(body=b"data")

    server.answer = late

    assert fetch(server.url, allowed=LISTED) == b"data"


def test_a_request_leaves_nothing_running(server: Web) -> None:
    """No thread stays behind, however many requests were made."""
    before = threading.active_count()
    for _ in range(20):
        fetch(server.url, allowed=LISTED, seconds=600.0)
    # The test's own server may still be closing the last connections.
    eventually(lambda: threading.active_count() <= before + 1, what="the end of every request's threads")
