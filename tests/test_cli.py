"""The `phi4` command when all goes its way: what is sent, what is written, and the exit code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.delivery import Asked, Wanted
from cli.jobs import run
from cli.main import app
from tests.scripted_api import ROOT, Command, Files, Scripted, running


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


def test_the_result_of_one_file_is_all_that_stdout_gets(phi4: Command, api: Scripted, files: Files) -> None:
    """`phi4 ocr FILE` writes the result, the file went as it is, and the exit code is 0."""
    result = phi4("ocr", *files("good.png"), "--pages", "1-2")

    assert (result.stdout, result.exit_code) == ("text of good.png\n", 0)
    sent = api.submissions[0]
    assert (sent["type"], sent["contents"]) == ("ocr", [b"content of good.png"])
    assert sent["params"] == {"format": "markdown", "pages": "1-2"}
    assert api.results_asked == [("job_0", "markdown")]


def test_progress_without_a_terminal_is_one_line_a_change(phi4: Command, files: Files) -> None:
    """Each status is told once, on stderr."""
    (path,) = files("good.png")

    lines = phi4("ocr", path).stderr.splitlines()

    assert lines == [f"{path}: {word}" for word in ("sending", "queued", "in progress", "completed")]


def test_results_come_in_the_order_given(phi4: Command, files: Files) -> None:
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
def test_one_bad_file_does_not_end_the_run(phi4: Command, files: Files, name: str, said: str) -> None:
    """Its code and sentence go to stderr, the other's result to stdout, and the exit code is 1."""
    bad, good = files(name, "good.png")

    result = phi4("ocr", bad, good)

    assert f"phi4: {bad}: {said}" in result.stderr.splitlines()
    assert result.stdout.endswith(f"==> {good} <==\ntext of good.png\n")
    assert result.exit_code == 1


def test_a_file_that_is_not_there_is_a_bad_file(phi4: Command, files: Files, tmp_path: Path) -> None:
    """The others are read all the same."""
    missing, (good,) = tmp_path / "missing.png", files("good.png")

    result = phi4("ocr", missing, good)

    assert f"phi4: {missing}: No such file or directory: {missing} (unreadable_file)" in result.stderr.splitlines()
    assert (result.stdout.splitlines()[-1], result.exit_code) == ("text of good.png", 1)


def test_json_is_one_object_for_each_file(phi4: Command, files: Files) -> None:
    """Jobs that completed, jobs that failed and files that were refused are told apart by their members."""
    paths = files("good.png", "failed.pdf", "refused.png")

    objects = [json.loads(line) for line in phi4("ocr", *paths, "--json").stdout.splitlines()]

    assert [o["files"] for o in objects] == [[str(path)] for path in paths]
    assert [o["object"] for o in objects] == ["job", "job", "error"]
    assert objects[0]["result"]["text"] == "text of good.png"
    assert [o["error"]["code"] for o in objects[1:]] == ["unreadable_pdf", "unsupported_media_type"]


def test_out_writes_a_file_for_each_result(phi4: Command, files: Files, tmp_path: Path) -> None:
    """Files are named after the inputs, numbered where these have one name; stdout lists them."""
    out = tmp_path / "new" / "out"

    result = phi4("ocr", *files("good.png", "other/good.png", "good.b.pdf"), "--out", out, "--format", "text")

    names = ["good.txt", "good-2.txt", "good.b.txt"]
    assert result.stdout.splitlines() == [str(out / name) for name in names]
    assert [(out / name).read_text() for name in names][1:] == ["text of good.png\n", "text of good.b.pdf\n"]


def test_out_that_cannot_be_written_is_said(phi4: Command, files: Files, tmp_path: Path) -> None:
    """A file in the way of the folder costs the exit code, not a traceback."""
    (in_the_way,) = files("in-the-way")

    result = phi4("ocr", *files("good.png"), "--out", in_the_way / "out")

    assert result.stderr.splitlines()[-1].endswith("Not a directory. (unwritable_file)")
    assert result.exit_code == 1


def test_a_job_may_carry_a_webhook(api: Scripted, files: Files) -> None:
    """Where a caller of the runner names one, it goes with the job."""
    asked = Asked("good.png", "ocr", tuple(files("good.png")), {}, webhook_url="http://127.0.0.1:1/hook")

    code = run([asked], Wanted("text"), url=api.url)

    assert code == 0
    assert api.submissions[0]["webhook_url"] == "http://127.0.0.1:1/hook"


def test_ask_sends_all_files_as_one_question(phi4: Command, api: Scripted, files: Files, tmp_path: Path) -> None:
    """Several files are one job, with the question and the schema."""
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object"}')

    result = phi4("ask", *files("a.png", "b.png"), "-q", "How much?", "--schema", schema)

    assert (result.stdout, result.exit_code) == ("text of a.png\n", 0)
    (sent,) = api.submissions
    assert (sent["type"], sent["names"]) == ("vqa", ["a.png", "b.png"])
    assert sent["params"] == {"question": "How much?", "response_schema": {"type": "object"}}


def test_transcribe_writes_subtitles(phi4: Command, api: Scripted, files: Files) -> None:
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
        (["transcribe", "FILE", "--to", "fr"], "--to needs --task translate"),
        (["jobs", "list", "--limit", "0"], "--limit"),
    ],
)
def test_wrong_usage_is_2_and_nothing_is_sent(
    phi4: Command, api: Scripted, files: Files, words: list[str], said: str
) -> None:
    """What the user got wrong is said before anything is sent."""
    (path,) = files("good.png")

    result = phi4(*(path if word == "FILE" else word for word in words))

    assert result.exit_code == 2
    assert said in re.sub(r"\s+", " ", result.stderr)
    assert api.submissions == []


def test_the_port_variable_is_where_the_service_is(api: Scripted, files: Files) -> None:
    """Without --url and PHI4_URL, PORT on this machine is asked."""
    env = {"PHI4_URL": None, "PORT": api.url.rpartition(":")[2]}

    result = CliRunner().invoke(app, ["ocr", str(files("good.png")[0])], env=env)

    assert result.stdout == "text of good.png\n"


def test_jobs_are_listed_with_tabs_where_there_is_no_terminal(phi4: Command, files: Files) -> None:
    """A header, then a line for each job, newest first."""
    phi4("ocr", *files("failed.pdf"))
    phi4("ocr", *files("good.png"))

    rows = [line.split("\t") for line in phi4("jobs", "list").stdout.splitlines()]

    assert rows[0] == ["ID", "TYPE", "STATUS", "CREATED", "DONE", "INPUT"]
    assert [(r[0], r[2], r[4], r[5]) for r in rows[1:]] == [
        ("job_1", "completed", "2/2 pages", "good.png"),
        ("job_0", "failed", "1/2 pages", "failed.pdf"),
    ]


def test_jobs_are_listed_as_json_and_filtered(phi4: Command, files: Files) -> None:
    """One object for each job; --status is the service's filter."""
    phi4("ocr", *files("failed.pdf", "good.png"))

    lines = phi4("jobs", "list", "--json", "--status", "failed").stdout.splitlines()

    assert [json.loads(line)["status"] for line in lines] == ["failed"]


def test_a_job_is_shown_with_its_error(phi4: Command, files: Files) -> None:
    """What is known of a job, field by field; what is not there has no line."""
    phi4("ocr", *files("failed.pdf"))

    fields = dict(line.split("\t") for line in phi4("jobs", "show", "job_0").stdout.splitlines())

    assert fields["status"] == "failed, 1/2 pages"
    assert fields["error"] == "The PDF cannot be read. (unreadable_pdf)"
    assert "started" not in fields


def test_the_result_of_a_job_can_be_fetched_later(phi4: Command, api: Scripted, files: Files) -> None:
    """`phi4 jobs result ID` writes it in the format wanted; --json is one of them."""
    phi4("ocr", *files("good.png"), "--json")

    assert phi4("jobs", "result", "job_0", "--format", "text").stdout == "text of good.png\n"
    phi4("jobs", "result", "job_0", "--json")
    assert api.results_asked[-1] == ("job_0", "json")


def test_a_job_is_cancelled(phi4: Command, api: Scripted, files: Files) -> None:
    """`phi4 jobs cancel ID` shows the job as it then is."""
    phi4("ocr", *files("good.png"))

    job = json.loads(phi4("jobs", "cancel", "job_0", "--json").stdout)

    assert (job["status"], api.cancelled) == ("cancelled", ["job_0"])


@pytest.mark.parametrize("job_id", ["job_9", "../../livez", "a b?c#d"])
def test_an_unknown_job_is_said_with_its_code(phi4: Command, job_id: str) -> None:
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
