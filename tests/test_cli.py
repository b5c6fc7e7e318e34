"""The `phi4` command against a real HTTP server that speaks the jobs API from a script."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, jsonify, request
from typer.testing import CliRunner, Result
from werkzeug.serving import make_server

from cli.main import app
from tests.conftest import eventually

ROOT = Path(__file__).parent.parent
PROGRAM = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from cli.main import app; app()"


@dataclass
class Scripted:
    """A jobs API whose jobs go the way that the name of their first file says."""

    url: str = ""
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    submissions: list[dict[str, Any]] = field(default_factory=list)
    results_asked: list[tuple[str, str]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    most_at_once: int = 0
    at_once: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def go_on(self, job: dict[str, Any]) -> None:
        """Take a job one step further on its way."""
        name = job["input"][0]["filename"]
        if job["status"] == "queued":
            job |= {"status": "in_progress", "progress": {"completed": 1, "total": 2, "unit": "page"}, "queue": {}}
        elif name.startswith("failed"):
            job |= {"status": "failed", "error": {"code": "unreadable_pdf", "message": "The PDF cannot be read."}}
        elif not name.startswith("slow") and (not name.startswith("late") or self.has_ended("early.png")):
            job |= {"status": "completed", "result": result_of(name)}
            job["progress"] = {"completed": 2, "total": 2, "unit": "page"}

    def has_ended(self, name: str) -> bool:
        """Whether the job made of a file has ended."""
        return any(j["status"] == "completed" for j in self.jobs.values() if j["input"][0]["filename"] == name)

    def running(self) -> list[str]:
        """The ids of the jobs that have begun."""
        return [id for id, job in self.jobs.items() if job["status"] == "in_progress"]


def result_of(name: str) -> dict[str, Any]:
    """The result of a job, by the name of its first file."""
    text = "\x1b[2Jred" if name.startswith("steering") else f"text of {name}"
    pages: list[dict[str, Any]] = [{"index": 0, "page": 1, "markdown": text, "text": text}]
    if name.startswith("half"):
        error = {"code": "unreadable_image", "message": "The image cannot be read."}
        pages.append({"index": 1, "page": 2, "markdown": "", "text": "", "error": error})
    return {"pages": pages, "text": text}


def problem(status: int, code: str, detail: str, **more: Any) -> Response:
    """An error as the API answers it."""
    response = jsonify({"status": status, "code": code, "detail": detail, "errors": [], **more})
    response.status_code = status
    response.headers["Retry-After"] = "0"
    return response


def scripted_app(script: Scripted) -> Flask:
    """The jobs API over a script."""
    flask = Flask("scripted")

    @flask.before_request
    def count_in() -> None:
        with script.changed:
            script.at_once += 1
            script.most_at_once = max(script.most_at_once, script.at_once)

    @flask.teardown_request
    def count_out(_error: BaseException | None) -> None:
        with script.changed:
            script.at_once -= 1

    @flask.post("/v1/jobs")
    def submit() -> Any:
        names = [f.filename or "" for f in request.files.getlist("file")]
        key = request.headers["Idempotency-Key"]
        contents = [f.stream.read() for f in request.files.getlist("file")]
        params = json.loads(request.form["params"])
        with script.changed:
            script.submissions.append(
                {"type": request.form["type"], "params": params, "names": names, "contents": contents, "key": key}
            )
            if names[0].startswith("refused"):
                return problem(415, "unsupported_media_type", f"{names[0]} is no image.")
            if names[0].startswith("crowded") and len(script.submissions) < 3:
                return problem(429, "queue_full", "Too much work is waiting; try again later.")
            job = {
                "id": f"job_{len(script.jobs)}",
                "object": "job",
                "type": request.form["type"],
                "status": "queued",
                "created_at": 1_700_000_000,
                "expires_at": 1_700_086_400,
                "queue": {"position": 3},
                "progress": {"completed": 0, "total": None, "unit": "page"},
                "params": params,
                "model": "phi-4-multimodal",
                "usage": {},
                "input": [{"filename": name} for name in names],
            }
            script.jobs[job["id"]] = job
            return jsonify(job), 202

    @flask.get("/v1/jobs/<job_id>")
    def show(job_id: str) -> Any:
        with script.changed:
            if (job := script.jobs.get(job_id)) is None:
                return problem(404, "not_found", "There is nothing under this address.")
            name = job["input"][0]["filename"]
            if name.startswith("restarted") and not job.setdefault("was_away", False):
                job["was_away"] = True
                return problem(503, "store_unavailable", "The job store does not answer.")
            if "wait" in request.args:
                before = job["status"]
                script.go_on(job)
                script.changed.notify_all()
                if job["status"] == before:
                    script.changed.wait_for(lambda: job["status"] != before, 0.2)
            return jsonify(job)

    @flask.get("/v1/jobs/<job_id>/result")
    def result(job_id: str) -> Any:
        job, wanted = script.jobs[job_id], request.args["format"]
        script.results_asked.append((job_id, wanted))
        if wanted == "srt":
            return "1\n00:00:00,000 --> 00:00:01,000\nhello\n"
        return job["result"]["text"] + "\n"

    @flask.post("/v1/jobs/<job_id>/cancel")
    def cancel(job_id: str) -> Any:
        with script.changed:
            script.jobs[job_id]["status"] = "cancelled"
            script.cancelled.append(job_id)
            script.changed.notify_all()
            return jsonify(script.jobs[job_id])

    @flask.get("/v1/jobs")
    def newest() -> Any:
        chosen = [j for j in script.jobs.values() if request.args.get("status") in (None, j["status"])]
        return jsonify({"object": "list", "data": chosen[::-1], "has_more": False})

    return flask


@contextlib.contextmanager
def served(flask: Flask) -> Iterator[str]:
    """Serve an application on a free port; gives its URL."""
    server = make_server("127.0.0.1", 0, flask, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def api() -> Iterator[Scripted]:
    """A running jobs API."""
    script = Scripted()
    with served(scripted_app(script)) as url:
        script.url = url
        yield script


@pytest.fixture
def phi4(api: Scripted) -> Callable[..., Result]:
    """Runs the command against that API."""
    return lambda *words, **env: CliRunner().invoke(app, [str(w) for w in words], env={"PHI4_URL": api.url} | env)


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., list[Path]]:
    """Makes small files."""

    def make(*names: str) -> list[Path]:
        paths = [tmp_path / name for name in names]
        for path in paths:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"content of " + path.name.encode())
        return paths

    return make


def started(*words: object, url: str, **more: Any) -> subprocess.Popen[bytes]:
    """The command as a process of its own."""
    env = os.environ | {"PHI4_URL": url, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"}
    return subprocess.Popen([sys.executable, "-c", PROGRAM, *map(str, words)], env=env, **more)


def test_the_result_of_one_file_is_all_that_stdout_gets(phi4: Any, api: Scripted, files: Any) -> None:
    """`phi4 ocr FILE` writes the result, the file went as it is, and the exit code is 0."""
    result = phi4("ocr", *files("good.png"), "--pages", "1-2")

    assert (result.stdout, result.exit_code) == ("text of good.png\n", 0)
    sent = api.submissions[0]
    assert (sent["type"], sent["contents"]) == ("ocr", [b"content of good.png"])
    assert sent["params"] == {"format": "markdown", "pages": "1-2"}
    assert api.results_asked == [("job_0", "markdown")]


def test_progress_without_a_terminal_is_one_line_a_change(phi4: Any, files: Any) -> None:
    """Each status is told once, on stderr."""
    (path,) = files("good.png")

    lines = phi4("ocr", path).stderr.splitlines()

    assert lines == [f"{path}: {word}" for word in ("sending", "queued", "in progress", "completed")]


def test_results_come_in_the_order_given(phi4: Any, files: Any) -> None:
    """A file whose job ends last keeps its place, and each result has its file's name above it."""
    late, early = files("late.png", "early.png")

    result = phi4("ocr", late, early)

    assert result.stdout == f"==> {late} <==\ntext of late.png\n\n==> {early} <==\ntext of early.png\n"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("refused.png", "refused.png is no image. (unsupported_media_type)"),
        ("failed.pdf", "The PDF cannot be read. (unreadable_pdf)"),
        ("half.pdf", "page 2: The image cannot be read. (unreadable_image)"),
    ],
)
def test_one_bad_file_does_not_end_the_run(phi4: Any, files: Any, name: str, said: str) -> None:
    """Its code and sentence go to stderr, the other's result to stdout, and the exit code is 1."""
    bad, good = files(name, "good.png")

    result = phi4("ocr", bad, good)

    assert f"phi4: {bad}: {said}" in result.stderr.splitlines()
    assert result.stdout.endswith(f"==> {good} <==\ntext of good.png\n")
    assert result.exit_code == 1


def test_a_file_that_is_not_there_is_a_bad_file(phi4: Any, files: Any, tmp_path: Path) -> None:
    """The others are read all the same."""
    missing, (good,) = tmp_path / "missing.png", files("good.png")

    result = phi4("ocr", missing, tmp_path, good)

    assert f"phi4: {missing}: No such file or directory: {missing} (unreadable_file)" in result.stderr.splitlines()
    assert f"phi4: {tmp_path}: Is a directory: {tmp_path} (unreadable_file)" in result.stderr.splitlines()
    assert (result.stdout.splitlines()[-1], result.exit_code) == ("text of good.png", 1)


def test_json_is_one_object_for_each_file(phi4: Any, files: Any) -> None:
    """Jobs that completed, jobs that failed and files that were refused are told apart by their members."""
    paths = files("good.png", "failed.pdf", "refused.png")

    objects = [json.loads(line) for line in phi4("ocr", *paths, "--json").stdout.splitlines()]

    assert [o["files"] for o in objects] == [[str(path)] for path in paths]
    assert [o["object"] for o in objects] == ["job", "job", "error"]
    assert objects[0]["result"]["text"] == "text of good.png"
    assert [o["error"]["code"] for o in objects[1:]] == ["unreadable_pdf", "unsupported_media_type"]


def test_out_writes_a_file_for_each_result(phi4: Any, files: Any, tmp_path: Path) -> None:
    """Files are named after the inputs, numbered where these have one name; stdout lists them."""
    out = tmp_path / "new" / "out"

    result = phi4("ocr", *files("good.png", "other/good.png", "good.b.pdf"), "--out", out, "--format", "text")

    names = ["good.txt", "good-2.txt", "good.b.txt"]
    assert result.stdout.splitlines() == [str(out / name) for name in names]
    assert [(out / name).read_text() for name in names][1:] == ["text of good.png\n", "text of good.b.pdf\n"]


def test_out_that_cannot_be_written_is_said(phi4: Any, files: Any, tmp_path: Path) -> None:
    """A file in the way of the folder costs the exit code, not a traceback."""
    (in_the_way,) = files("in-the-way")

    result = phi4("ocr", *files("good.png"), "--out", in_the_way / "out")

    assert result.stderr.splitlines()[-1].endswith("Not a directory. (unwritable_file)")
    assert result.exit_code == 1


def test_ask_sends_all_files_as_one_question(phi4: Any, api: Scripted, files: Any, tmp_path: Path) -> None:
    """Several files are one job, with the question and the schema."""
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object"}')

    result = phi4("ask", *files("a.png", "b.png"), "-q", "How much?", "--schema", schema)

    assert (result.stdout, result.exit_code) == ("text of a.png\n", 0)
    (sent,) = api.submissions
    assert (sent["type"], sent["names"]) == ("vqa", ["a.png", "b.png"])
    assert sent["params"] == {"question": "How much?", "response_schema": {"type": "object"}}


def test_transcribe_writes_subtitles(phi4: Any, api: Scripted, files: Any) -> None:
    """The format is asked of the service; task and languages are params."""
    result = phi4(
        *("transcribe", *files("a.wav"), "--format", "srt"),
        *("--task", "translate", "--language", "de", "--to", "fr"),
    )

    assert result.stdout == "1\n00:00:00,000 --> 00:00:01,000\nhello\n"
    assert api.submissions[0]["params"] == {"task": "translate", "language": "de", "target_language": "fr"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ocr"], "Missing argument 'FILE'"),
        (["ocr", "FILE", "--format", "pdf"], "'pdf' is not one of 'markdown', 'text'"),
        (["ocr", "FILE", "--pages", "3-1"], "pages count from 1, and a range goes upwards"),
        (["ocr", "FILE", "--timeout", "0"], "--timeout"),
        (["ocr", "FILE", "--url", "localhost:8000"], "'localhost:8000' is not an http or https URL"),
        (["ocr", "FILE", "--url", "http://h:99999"], "is not an http or https URL"),
        (["ask", "FILE"], "Missing option '--question' / '-q'"),
        (["ask", "FILE", "-q", " "], "must hold a question"),
        (["ask", "FILE", "-q", "?", "--schema", "FILE"], "is not JSON"),
        (["transcribe", "FILE", "--language", "German"], "language: String should match pattern"),
        (["jobs", "list", "--limit", "0"], "--limit"),
    ],
)
def test_wrong_usage_is_2_and_nothing_is_sent(
    phi4: Any, api: Scripted, files: Any, words: list[str], said: str
) -> None:
    """What the user got wrong is said before anything is sent."""
    (path,) = files("good.png")

    result = phi4(*(path if word == "FILE" else word for word in words))

    assert result.exit_code == 2
    assert said in re.sub(r"\s+", " ", result.stderr)
    assert api.submissions == []


@pytest.mark.parametrize("words", [("ocr", "FILE", "FILE"), ("jobs", "list"), ("jobs", "cancel", "job_0")])
def test_nobody_there_is_one_plain_line(phi4: Any, files: Any, words: tuple[str, ...]) -> None:
    """It says how to start a service and how to point to one."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://user:secret@127.0.0.1:{free.getsockname()[1]}"

    result = phi4(*(files("good.png")[0] if word == "FILE" else word for word in words), PHI4_URL=url)

    (line,) = [line for line in result.stderr.splitlines() if not line.endswith("sending")]
    assert line.startswith("phi4: No service answers at http://127.0.0.1:")
    assert "`phi4 up`" in line
    assert "PHI4_URL" in line
    assert result.exit_code == 1


def test_another_program_at_the_address_is_recognised(phi4: Any, files: Any) -> None:
    """An answer that is not of the jobs API is not taken for one."""
    with served(Flask("stranger")) as url:
        result = phi4("ocr", *files("good.png"), "--url", url)

    assert "answered 404 NOT FOUND, and not as phi4 does; is it the address?" in result.stderr
    assert result.exit_code == 1


def test_the_port_variable_is_where_the_service_is(api: Scripted, files: Any) -> None:
    """Without --url and PHI4_URL, PORT on this machine is asked."""
    env = {"PHI4_URL": None, "PORT": api.url.rpartition(":")[2]}

    result = CliRunner().invoke(app, ["ocr", str(files("good.png")[0])], env=env)

    assert result.stdout == "text of good.png\n"


def test_a_proxy_for_the_outside_world_is_not_asked_for_loopback(phi4: Any, files: Any) -> None:
    """HTTP_PROXY does not matter on this machine."""
    result = phi4("ocr", *files("good.png"), HTTP_PROXY="http://127.0.0.1:1", http_proxy="http://127.0.0.1:1")

    assert result.exit_code == 0


def test_a_full_queue_is_waited_for(phi4: Any, api: Scripted, files: Any) -> None:
    """429 is tried again with the same Idempotency-Key, so that it is one job whatever happens."""
    result = phi4("ocr", *files("crowded.png"))

    assert result.stdout == "text of crowded.png\n"
    assert len(api.submissions) == 3
    assert len({s["key"] for s in api.submissions}) == len(api.jobs) == 1


def test_a_short_absence_of_the_service_costs_nothing(phi4: Any, files: Any) -> None:
    """A job is waited for across a 503."""
    result = phi4("ocr", *files("restarted.png"))

    assert (result.stdout, result.exit_code) == ("text of restarted.png\n", 0)


def test_a_service_that_stays_away_is_given_up(phi4: Any, files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """After our patience the error is told like any other."""
    monkeypatch.setattr("cli.jobs._PATIENCE_S", -1.0)

    result = phi4("ocr", *files("restarted.png"))

    assert "The job store does not answer. (store_unavailable)" in result.stderr
    assert result.exit_code == 1


def test_many_files_leave_the_service_room(phi4: Any, api: Scripted, files: Any) -> None:
    """However many files there are, at most eight requests are under way."""
    result = phi4("ocr", *files(*(f"good-{n}.png" for n in range(30))))

    assert result.exit_code == 0
    assert len(api.jobs) == 30
    assert 1 < api.most_at_once <= 8


def test_a_timeout_cancels_what_has_not_ended(phi4: Any, api: Scripted, files: Any) -> None:
    """Jobs that ended in time are shown; the others are cancelled, since nobody waits for them."""
    good, slow = files("good.png", "slow.png")

    result = phi4("ocr", good, slow, "--timeout", "2")

    assert f"phi4: {slow}: Not finished within 2 s, and given up. (timed_out)" in result.stderr
    assert "text of good.png" in result.stdout
    assert result.exit_code == 1
    assert [api.jobs[id]["input"][0]["filename"] for id in api.cancelled] == ["slow.png"]


def test_ctrl_c_cancels_the_jobs_still_running(api: Scripted, files: Any) -> None:
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


def test_a_reader_that_leaves_ends_the_run(api: Scripted, files: Any) -> None:
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


def on_a_terminal(*words: object, url: str, **more: Any) -> str:
    """What a terminal is sent that is the command's stderr and, unless `more` says otherwise, its stdout."""
    ours, theirs = pty.openpty()
    process = started(*words, url=url, **({"stdout": theirs} | more), stderr=theirs)
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):  # Linux says EIO when the other side has closed
        while piece := os.read(ours, 65_536):
            seen += piece
    os.close(ours)
    process.wait(60)
    return seen.decode()


def test_a_terminal_gets_bars(api: Scripted, files: Any, tmp_path: Path) -> None:
    """On a terminal stderr shows a bar with status, queue position and pages; stdout holds the results alone."""
    with (tmp_path / "out").open("wb") as out:
        seen = on_a_terminal("ocr", *files("good.png"), *files("slow.png"), "--timeout", 2, url=api.url, stdout=out)

    assert "━" in seen
    assert "in progress, 1/2 pages" in seen
    assert "timed_out" in seen
    assert (tmp_path / "out").read_text().endswith("text of good.png\n")


def test_what_a_page_holds_cannot_steer_the_terminal(phi4: Any, api: Scripted, files: Any) -> None:
    """Control characters are replaced on a terminal, and kept in a file or pipe."""
    (path,) = files("steering.png")

    assert "\N{REPLACEMENT CHARACTER}[2Jred" in on_a_terminal("ocr", path, url=api.url)
    assert phi4("ocr", path).stdout == "\x1b[2Jred\n"


def test_jobs_are_listed_with_tabs_where_there_is_no_terminal(phi4: Any, files: Any) -> None:
    """A header, then a line for each job, newest first."""
    phi4("ocr", *files("failed.pdf"))
    phi4("ocr", *files("good.png"))

    rows = [line.split("\t") for line in phi4("jobs", "list").stdout.splitlines()]

    assert rows[0] == ["ID", "TYPE", "STATUS", "CREATED", "DONE", "INPUT"]
    assert [(r[0], r[2], r[4], r[5]) for r in rows[1:]] == [
        ("job_1", "completed", "2/2 pages", "good.png"),
        ("job_0", "failed", "1/2 pages", "failed.pdf"),
    ]


def test_jobs_are_listed_as_json_and_filtered(phi4: Any, files: Any) -> None:
    """One object for each job; --status is the service's filter."""
    phi4("ocr", *files("failed.pdf", "good.png"))

    lines = phi4("jobs", "list", "--json", "--status", "failed").stdout.splitlines()

    assert [json.loads(line)["status"] for line in lines] == ["failed"]


def test_the_table_fits_a_terminal(api: Scripted, phi4: Any, files: Any) -> None:
    """On a terminal the list is a table without tabs."""
    phi4("ocr", *files("good.png"))

    seen = on_a_terminal("jobs", "list", url=api.url)

    assert "job_0" in seen
    assert "\t" not in seen


def test_a_job_is_shown_with_its_error(phi4: Any, files: Any) -> None:
    """What is known of a job, field by field; what is not there has no line."""
    phi4("ocr", *files("failed.pdf"))

    fields = dict(line.split("\t") for line in phi4("jobs", "show", "job_0").stdout.splitlines())

    assert fields["status"] == "failed, 1/2 pages"
    assert fields["error"] == "The PDF cannot be read. (unreadable_pdf)"
    assert "started" not in fields


def test_the_result_of_a_job_can_be_fetched_later(phi4: Any, files: Any) -> None:
    """`phi4 jobs result ID` writes it in the format wanted."""
    phi4("ocr", *files("good.png"), "--json")

    assert phi4("jobs", "result", "job_0", "--format", "text").stdout == "text of good.png\n"


def test_a_job_is_cancelled(phi4: Any, api: Scripted, files: Any) -> None:
    """`phi4 jobs cancel ID` shows the job as it then is."""
    phi4("ocr", *files("good.png"))

    job = json.loads(phi4("jobs", "cancel", "job_0", "--json").stdout)

    assert (job["status"], api.cancelled) == ("cancelled", ["job_0"])


@pytest.mark.parametrize("job_id", ["job_9", "../../livez", "a b?c#d"])
def test_an_unknown_job_is_said_with_its_code(phi4: Any, job_id: str) -> None:
    """Whatever is given as an id stays one piece of the path."""
    result = phi4("jobs", "show", job_id)

    assert result.stderr.startswith("phi4: ")
    assert "Traceback" not in result.stderr
    assert (result.stdout, result.exit_code) == ("", 1)


def test_wrong_settings_stop_up_naming_the_variable(tmp_path: Path) -> None:
    """`phi4 up` with a bad value says which variable it is, in one line."""
    result = CliRunner().invoke(app, ["up"], env={"PHI4_LEASE_SECONDS": "soon", "PHI4_DATA_DIR": str(tmp_path)})

    assert result.stderr.splitlines()[0].startswith("phi4: PHI4_LEASE_SECONDS='soon': ")
    assert len(result.stderr.splitlines()) == 1
    assert result.exit_code == 2


def test_up_on_a_port_that_is_taken_says_so(api: Scripted, tmp_path: Path) -> None:
    """The sentence of the error, no traceback, exit code 1."""
    result = CliRunner().invoke(app, ["up", "--port", api.url.rpartition(":")[2], "--data-dir", str(tmp_path)])

    assert result.stderr.startswith("phi4: Port ")
    assert (result.exit_code, list(tmp_path.iterdir())) == (1, [])


def test_help_loads_nothing_heavy() -> None:
    """`phi4 --help` answers at once because libraries are loaded by the commands that need them."""
    code = (
        "import sys\nfrom cli.main import app\n"
        "app(['--help'], standalone_mode=False)\n"
        "print(sorted({'rich', 'httpx', 'pydantic', 'redis', 'flask', 'celery'} & set(sys.modules)), file=sys.stderr)"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert "transcribe" in done.stdout
    assert done.stderr == "[]\n"
