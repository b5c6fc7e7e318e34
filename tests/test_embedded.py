"""The embedded Valkey, run for real: what it keeps, who may talk to it, and that a folder never has two servers."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis

from cli import embedded
from cli.embedded import AlreadyRunning, EmbeddedValkey, PortTaken, free_port, port_is_taken
from cli.supervisor import Supervisor


def until(condition: Callable[[], object]) -> None:
    """Wait until something is so; fail after 20 s."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited for 20 s in vain"
        time.sleep(0.02)


def connect(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, decode_responses=True)


def pid_of(valkey: EmbeddedValkey) -> int:
    return int((valkey.data_dir / "valkey.pid").read_text())


@contextlib.contextmanager
def served(data_dir: Path, port: int | None = None) -> Iterator[EmbeddedValkey]:
    """A server under a supervisor, up; stopped at the end by SIGTERM."""
    with EmbeddedValkey(data_dir, port) as valkey:
        events: list[str] = []
        supervisor = Supervisor([valkey.child()], grace=20, on_event=events.append)
        thread = threading.Thread(target=supervisor.run)
        thread.start()
        try:
            # Not before the supervisor knows it too: a child that dies while it starts is not started again.
            until(lambda: "valkey is ready" in events)
            yield valkey
        finally:
            supervisor.stop()
            thread.join(20)


@contextlib.contextmanager
def listener() -> Iterator[int]:
    """A stranger's server; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_data_survive_a_kill_of_the_server(tmp_path: Path) -> None:
    """Killed by SIGKILL, the server is started again on the same port, with all that was on disk."""
    with served(tmp_path) as valkey:
        before = pid_of(valkey)
        with connect(valkey.url) as client:
            client.set("job", "kept")
            assert client.waitaof(1, 0, 5000)[0] == 1
        psutil.Process(before).kill()
        until(lambda: valkey.answers() and pid_of(valkey) != before)

        with connect(valkey.url) as client:
            assert client.get("job") == "kept"


def test_data_password_and_port_survive_a_restart_of_the_service(tmp_path: Path) -> None:
    """A drain loses not even the last second, and whoever knew the URL still knows it."""
    with served(tmp_path) as valkey, connect(valkey.url) as client:
        client.set("job", "kept")
        url = valkey.url

    with served(tmp_path) as valkey, connect(url) as client:
        assert valkey.url == url
        assert client.get("job") == "kept"


def test_the_server_keeps_jobs_safe_and_talks_to_this_machine_only(tmp_path: Path) -> None:
    """Data go to disk every second, nothing is evicted, only loopback is bound, and a password is asked for."""
    with served(tmp_path) as valkey:
        with connect(valkey.url) as client:
            settings = client.config_get("append*", "save", "maxmemory-policy")
        with connect(f"redis://127.0.0.1:{valkey.port}/0") as client, pytest.raises(redis.AuthenticationError):
            client.ping()
        listening = {address.laddr for address in psutil.Process(pid_of(valkey)).net_connections() if not address.raddr}

    expected = {"appendonly": "yes", "appendfsync": "everysec", "save": "", "maxmemory-policy": "noeviction"}
    assert expected.items() <= settings.items()
    assert listening == {("127.0.0.1", valkey.port)}


def test_the_password_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    """The files with the password have mode 0600, also where they were looser, and no command line shows it."""
    (tmp_path / "valkey.password").write_text("from-an-earlier-version")
    (tmp_path / "valkey.password").chmod(0o644)

    with EmbeddedValkey(tmp_path) as valkey:
        modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("valkey.password", "valkey.conf")}

        assert valkey.url == f"redis://:from-an-earlier-version@127.0.0.1:{valkey.port}/0"
        assert "from-an-earlier-version" not in " ".join(valkey.child().argv)
    assert modes == {0o600}


def test_a_folder_gets_a_random_password_and_is_closed_to_others(tmp_path: Path) -> None:
    """Two folders have two passwords, and a folder we make has mode 0700."""
    with EmbeddedValkey(tmp_path / "a") as one, EmbeddedValkey(tmp_path / "b") as other:
        passwords = {re.findall(":([^:]+)@", valkey.url)[0] for valkey in (one, other)}

    assert {len(password) for password in passwords} == {43}
    assert len(passwords) == 2
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700


def test_a_folder_with_an_odd_name_works(tmp_path: Path) -> None:
    """Blanks, quotes, backslashes and umlauts in the data folder's path are no trouble."""
    with served(tmp_path / 'Bücher "a" \\b #1') as valkey, connect(valkey.url) as client:
        assert client.config_get("dir")["dir"] == str(valkey.data_dir)


def test_a_second_owner_is_refused_with_one_line(tmp_path: Path) -> None:
    """A second `phi4 up` on the same folder is told who runs there; it changes nothing."""
    with EmbeddedValkey(tmp_path) as valkey:
        before = (tmp_path / "valkey.conf").read_text()
        with pytest.raises(AlreadyRunning, match=r"\Aphi4 already runs on .* \(process \d+\); stop it .*\Z") as caught:
            EmbeddedValkey(tmp_path, free_port())

        assert "\n" not in str(caught.value)
        assert (tmp_path / "valkey.conf").read_text() == before
        assert valkey.url

    with EmbeddedValkey(tmp_path):
        pass


def test_the_server_of_a_killed_owner_is_stopped_and_its_data_are_kept(tmp_path: Path) -> None:
    """A server left behind is ended before a new one starts, on the same port: there are never two on a folder."""
    with EmbeddedValkey(tmp_path) as valkey:
        orphan = subprocess.Popen(valkey.child().argv, stdout=subprocess.DEVNULL)
        until(valkey.answers)
        with connect(valkey.url) as client:
            client.set("job", "kept")

    with orphan, served(tmp_path) as successor, connect(successor.url) as client:
        assert orphan.wait(20) == 0
        assert successor.port == valkey.port
        assert client.get("job") == "kept"


def test_a_stale_pid_file_harms_no_stranger(tmp_path: Path) -> None:
    """A process that has the old server's number, but is not one of this folder, is left alone."""
    with subprocess.Popen(["sleep", "300"], cwd=tmp_path) as stranger:
        (tmp_path / "valkey.pid").write_text(f"{stranger.pid}\n")
        with EmbeddedValkey(tmp_path):
            assert stranger.poll() is None
        stranger.kill()


def test_a_server_of_another_folder_is_left_alone(tmp_path: Path) -> None:
    """The pid file of a copied data folder leads to the server of the original, which goes on."""
    copy = tmp_path / "copy"
    with served(tmp_path / "original") as original:
        copy.mkdir()
        (copy / "valkey.pid").write_text(str(pid_of(original)))
        with EmbeddedValkey(copy):
            assert original.answers()


def test_a_server_that_is_not_up_does_not_answer(tmp_path: Path) -> None:
    """Readiness is a question, not an exception."""
    with EmbeddedValkey(tmp_path) as valkey:
        assert valkey.answers() is False


def test_a_strangers_server_on_the_remembered_port_is_avoided(tmp_path: Path) -> None:
    """If another program took the port meanwhile, a new one is chosen and remembered."""
    with listener() as taken:
        (tmp_path / "valkey.port").write_text(str(taken))
        with EmbeddedValkey(tmp_path) as valkey:
            assert valkey.port != taken
        with EmbeddedValkey(tmp_path) as again:
            assert again.port == valkey.port


def test_a_port_that_was_asked_for_is_used_or_refused(tmp_path: Path) -> None:
    """The caller's own port is never silently replaced; the refusal leaves the folder free."""
    port = free_port()
    with listener() as taken, pytest.raises(PortTaken, match=f"another program listens on 127.0.0.1:{taken}"):
        EmbeddedValkey(tmp_path, taken)

    with EmbeddedValkey(tmp_path, port) as valkey:
        assert valkey.port == port


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_port_is_taken_while_someone_listens(host: str) -> None:
    """A listener on loopback takes the port for every address that includes it."""
    with listener() as port:
        assert port_is_taken(host, port)
    assert not port_is_taken(host, port)


@pytest.mark.parametrize(
    "host",
    [
        # No address of this machine.
        "192.0.2.1",
        # No name at all.
        "no-such-host.invalid",
    ],
)
def test_an_obstacle_other_than_a_listener_is_not_called_taken(host: str) -> None:
    """Whoever binds such a host gets the true reason from the server itself."""
    assert not port_is_taken(host, 8000)


def test_a_free_port_is_not_one_that_outgoing_connections_get() -> None:
    """On an outgoing port a client could connect to itself while the server is down."""
    port = free_port()

    assert not port_is_taken("127.0.0.1", port)
    assert 20_000 <= port < 32_768


def test_an_owner_that_is_killed_gives_its_folder_back(tmp_path: Path) -> None:
    """The lock dies with the process, so that nobody has to delete a lock file."""
    code = "import sys; from cli.embedded import *; held = EmbeddedValkey(Path(sys.argv[1])); print('locked'); input()"
    owner = subprocess.Popen(
        [sys.executable, "-u", "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(embedded.__file__).parents[1],
    )
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "locked\n"
        with pytest.raises(AlreadyRunning, match=f"process {owner.pid}"):
            EmbeddedValkey(tmp_path)
        owner.send_signal(signal.SIGKILL)
        owner.wait(20)

        with EmbeddedValkey(tmp_path) as valkey:
            assert valkey.port
