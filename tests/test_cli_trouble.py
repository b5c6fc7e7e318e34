"""The `phi4` command when the service is away, full, slow or another program, and when the user has enough."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from cli.delivery import Asked, Outcome
from cli.jobs import Batch, _pause
from cli.remote import Job, Remote, Unreachable
from cli.show import Lines
from tests.conftest import eventually
from tests.scripted_api import Command, Files, Scripted, running, served, started


@pytest.fixture
def api() -> Iterator[Scripted]:
    """A running jobs API."""
    with running() as script:
        yield script


@pytest.fixture
def phi4(api: Scripted) -> Command:
    """The command against that API."""
    return Command(api.url)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Makes small files."""
    return Files(tmp_path)


@pytest.mark.parametrize("words", [("ocr", "FILE", "FILE"), ("jobs", "list"), ("jobs", "cancel", "job_0")])
def test_nobody_there_is_one_plain_line(phi4: Command, files: Files, words: tuple[str, ...]) -> None:
    """It says how to start a service and how to point to one."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://user:secret@127.0.0.1:{free.getsockname()[1]}"

    result = phi4(*(files("good.png")[0] if word == "FILE" else word for word in words), PHI4_URL=url)

    (line,) = [line for line in result.stderr.splitlines() if not line.endswith("sending")]
    assert line.startswith("phi4: No service answers at http://127.0.0.1:")
    assert "`phi4 up`" in line
    assert "PHI4_URL" in line
    assert result.exit_code == 1


def test_another_program_at_the_address_is_recognised(phi4: Command, files: Files) -> None:
    """An answer that is not of the jobs API is not taken for one."""
    with served(Flask("stranger")) as url:
        result = phi4("ocr", *files("good.png"), "--url", url)

    assert "answered 404 NOT FOUND, and not as phi4 does; is it the address?" in result.stderr
    assert result.exit_code == 1


def test_a_proxy_for_the_outside_world_is_not_asked_for_loopback(phi4: Command, files: Files) -> None:
    """HTTP_PROXY does not matter on this machine."""
    result = phi4("ocr", *files("good.png"), HTTP_PROXY="http://127.0.0.1:1", http_proxy="http://127.0.0.1:1")

    assert result.exit_code == 0


def test_a_full_queue_is_waited_for(phi4: Command, api: Scripted, files: Files) -> None:
    """429 is tried again with the same Idempotency-Key, so that it is one job whatever happens."""
    result = phi4("ocr", *files("crowded.png"))

    assert result.stdout == "text of crowded.png\n"
    assert len(api.submissions) == 3
    assert len({s["key"] for s in api.submissions}) == len(api.jobs) == 1


@pytest.mark.parametrize("route", ["submit", "show", "result"])
def test_a_key_that_has_made_too_many_requests_waits(
    phi4: Command, api: Scripted, files: Files, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    """As `Retry-After` says, whatever was asked; it costs no patience, and is told once."""
    pauses: list[float] = []

    async def recorded(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("cli.jobs._PATIENCE_S", -1.0)
    monkeypatch.setattr("cli.jobs.asyncio.sleep", recorded)
    monkeypatch.setattr(Remote, route, limited(api, getattr(Remote, route)))

    result = phi4("ocr", *files("good.png"))

    assert (result.stdout, result.exit_code) == ("text of good.png\n", 0)
    assert pauses.count(47.0) == 3
    assert result.stderr.count("requests for this minute are used up") == 1


def limited(api: Scripted, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """A method of the client whose first call uses up the requests of its key."""
    first = iter([3])

    def called(*args: Any, **more: Any) -> Awaitable[Any]:
        api.too_many, api.retry_after = next(first, api.too_many), "47"
        return method(*args, **more)

    return called


def test_a_job_that_takes_long_is_asked_after_less_often() -> None:
    """So that waiting does not use up what its key may ask."""
    assert [_pause(elapsed) for elapsed in (0, 60, 3600)] == [0.5, 6.0, 10.0]


def test_a_short_absence_of_the_service_costs_nothing(phi4: Command, files: Files) -> None:
    """A job is waited for across a 503."""
    result = phi4("ocr", *files("restarted.png"))

    assert (result.stdout, result.exit_code) == ("text of restarted.png\n", 0)


def test_a_service_that_stays_away_is_given_up(phi4: Command, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """After our patience the error is told like any other."""
    monkeypatch.setattr("cli.jobs._PATIENCE_S", -1.0)

    result = phi4("ocr", *files("restarted.png"))

    assert "The job store does not answer. (store_unavailable)" in result.stderr
    assert result.exit_code == 1


class AwayOnce(Remote):
    """A client whose second submission finds nobody there, once."""

    submissions = 0

    async def submit(self, *args: Any, **more: Any) -> Job:
        """Send files as one job."""
        self.submissions += 1
        if self.submissions == 2:
            await self.newest()
            raise Unreachable("http://here", "it is being restarted")
        return await super().submit(*args, **more)


def test_a_service_that_was_met_may_be_away_while_files_are_sent(api: Scripted, files: Files) -> None:
    """A restart of the service in the middle of many files loses none of them."""
    asked = [Asked(path.name, "ocr", (path,), {}) for path in files("good-1.png", "good-2.png")]
    outcomes: list[Outcome] = []
    batch = Batch(AwayOnce(api.url), Lines(["1", "2"]), wanted="text", timeout=None)

    asyncio.run(batch.run(asked, lambda _number, outcome: outcomes.append(outcome)))

    assert [outcome.text for outcome in outcomes] == ["text of good-1.png\n", "text of good-2.png\n"]


def test_a_connection_broken_off_is_told_as_such(phi4: Command, files: Files) -> None:
    """A server that hangs up in the middle of an upload is there; the likely reason is named."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=hang_up, args=(server,))
        thread.start()
        result = phi4("ocr", *files("good.png"), "--url", f"http://127.0.0.1:{server.getsockname()[1]}")
        thread.join()

    assert "The service broke off the connection" in result.stderr
    assert "PHI4_MAX_BODY_MB" in result.stderr
    assert result.stderr.endswith("(connection_broken)\n")
    assert result.exit_code == 1


def hang_up(server: socket.socket) -> None:
    """Take one connection, read a little of it, and reset it."""
    connection, _ = server.accept()
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_many_files_leave_the_service_room(phi4: Command, api: Scripted, files: Files) -> None:
    """However many files there are, at most eight requests are under way."""
    result = phi4("ocr", *files(*(f"good-{n}.png" for n in range(30))))

    assert result.exit_code == 0
    assert len(api.jobs) == 30
    assert 1 < api.most_at_once <= 8


def test_a_timeout_cancels_what_has_not_ended(phi4: Command, api: Scripted, files: Files) -> None:
    """Jobs that ended in time are shown; the others are cancelled, since nobody waits for them."""
    good, slow = files("good.png", "slow.png")

    result = phi4("ocr", good, slow, "--timeout", "2")

    assert f"phi4: {slow}: Not finished within 2 s, and given up. (timed_out)" in result.stderr
    assert "text of good.png" in result.stdout
    assert result.exit_code == 1
    assert [api.jobs[id]["input"][0]["filename"] for id in api.cancelled] == ["slow.png"]


def test_ctrl_c_cancels_the_jobs_still_running(api: Scripted, files: Files) -> None:
    """The jobs are cancelled on the service, results that were there stay, and the exit code is 130."""
    good, *slow = files("good.png", "slow-1.png", "slow-2.png")
    process = started("ocr", good, *slow, url=api.url, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    eventually(lambda: len(api.running()) == 2 and len(api.results_asked) == 1, what="two running jobs")

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert err.decode().splitlines()[-1] == "phi4: interrupted; 2 jobs cancelled"
    assert len(api.cancelled) == 2
    assert b"Traceback" not in out + err


@pytest.mark.parametrize("words", [("ocr", "-"), ("ask", "-", "-q", "?"), ("transcribe", "-")])
def test_ctrl_c_ends_the_wait_for_input(api: Scripted, words: tuple[str, ...]) -> None:
    """Nobody has to end the input first."""
    with started(*words, url=api.url, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        finally:
            process.kill()
        rest = process.stderr.read()

    assert (said, rest) == (b"stdin: waiting for input\n", b"phi4: interrupted\n")
    assert process.returncode == 130


def test_what_is_piped_in_is_sent_again_whole(api: Scripted) -> None:
    """When the service had no room for it at first."""
    api.too_many = 1
    process = started("ocr", "-", url=api.url, stdin=subprocess.PIPE, stderr=subprocess.PIPE)

    process.communicate(b"content", timeout=60)

    assert [sent["contents"] for sent in api.submissions] == [[b"content"]]


def test_a_reader_that_leaves_ends_the_run(api: Scripted, files: Files) -> None:
    """With stdout closed (`phi4 ocr … | head`), the jobs that nobody will read are cancelled."""
    process = started(
        "ocr", *files("good.png", "slow.png"), url=api.url, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()

    err = process.communicate(timeout=60)[1]

    assert process.returncode == 1
    assert b"Traceback" not in err
    assert len(api.cancelled) == 1


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PHI4_API_KEY", "ключ", "PHI4_API_KEY holds characters that no key has."),
        ("PHI4_URL", "http://xn--a/", "is no address of a service"),
        ("PHI4_URL", "http://a\x01b/", "is no address of a service"),
    ],
)
@pytest.mark.parametrize("words", [("ocr", "FILE"), ("jobs", "list")])
def test_settings_that_make_no_sense_are_one_plain_line(
    phi4: Command, files: Files, words: tuple[str, ...], variable: str, value: str, said: str
) -> None:
    """Not the traceback of a library that was given them."""
    result = phi4(*(files("good.png")[0] if word == "FILE" else word for word in words), **{variable: value})

    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert result.exit_code == 1
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_a_job_that_no_terminal_can_write_is_not_found(phi4: Command) -> None:
    """Bytes that are no UTF-8 reach a program as half characters."""
    result = phi4("jobs", "show", "job_\udcff")

    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)


def test_a_schema_that_is_too_deep_is_a_wrong_argument(phi4: Command, tmp_path: Path) -> None:
    """Before anything is sent."""
    deep = tmp_path / "deep.json"
    deep.write_text('{"a":' * 5_000 + "1" + "}" * 5_000)

    result = phi4("ask", "--schema", deep, "-q", "?", tmp_path / "page.png")

    assert result.exit_code == 2
    assert "nested too deep" in result.stderr


def test_a_file_whose_name_is_no_utf_8_is_sent(phi4: Command, files: Files, tmp_path: Path) -> None:
    """And does not end a run over a whole folder; its name has marks in place of what cannot be told."""
    good = files("good.png")[0]
    strange = Path(os.fsdecode(os.fsencode(tmp_path) + b"/z\xe9.png"))
    strange.write_bytes(Path(good).read_bytes())

    result = phi4("ocr", good, strange)

    assert result.exit_code == 0, result.stderr
