"""`phi4 predict`: answers about files without a service, from an engine in the command's own process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL.Image import Image
from typer.testing import CliRunner, Result

from cli import predict as predicting
from cli.main import app
from phi4.errors import TooManyPages
from phi4.settings import Settings, load
from tests.conftest import ROOT, pdf, png
from tests.engines import Scripted
from tests.servers import Reply, web
from worker.engines.base import Answer, Call, Task

TALK = ROOT / "examples" / "inputs" / "talk.mp3"


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a picture, a document of two pages and a damaged file; the engine obeys its prompts."""
    monkeypatch.setenv("PHI4_ENGINE", "tests.engines:Scripted")
    (tmp_path / "a.png").write_bytes(png(320, 200))
    (tmp_path / "two.pdf").write_bytes(pdf(2))
    (tmp_path / "bad.png").write_bytes(png()[:60])
    return tmp_path


def predict(*arguments: str | Path) -> Result:
    """Run the command."""
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def test_a_picture_is_read_when_nothing_is_asked(inputs: Path) -> None:
    """The words go to stdout and nothing else does."""
    result = predict("--image", inputs / "a.png")

    assert (result.exit_code, result.stdout) == (0, "page 320x200\n")


def test_every_page_of_a_document_is_read(inputs: Path) -> None:
    """Pages are joined by an empty line."""
    pages = predict("--image", inputs / "two.pdf").stdout.split("\n\n")

    assert [page.split("x")[0].split()[0] for page in pages] == ["page", "page"]


def test_a_prompt_asks_over_all_pictures_together(inputs: Path) -> None:
    """`--images a b` as a shell's glob gives it, and PDF pages among them, are one question."""
    result = predict("--images", inputs / "a.png", inputs / "two.pdf", "--prompt", "Same?")

    assert (result.exit_code, result.stdout) == (0, "3 images: Same?\n")


def test_a_picture_may_be_a_url(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetched through the guard of all fetching, also for a batch."""
    monkeypatch.setenv("PHI4_ALLOW_HOSTS", "127.0.0.1")
    with web() as server:
        server.answer = lambda _: Reply(body=png(70, 50))
        (inputs / "lines.jsonl").write_text(json.dumps({"image": f"{server.url}/a.png"}))
        one = predict("--image", f"{server.url}/a.png")
        predict("--batch-input", inputs / "lines.jsonl", "--output-dir", inputs / "out")
    private = predict("--image", "http://10.0.0.1/a.png")

    assert (one.exit_code, one.stdout) == (0, "page 70x50\n")
    assert (inputs / "out" / "1.txt").read_text() == one.stdout
    assert (private.exit_code, "not a public address" in private.stderr) == (1, True)


def test_model_and_device_may_be_named(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the original example's flags do; the folder of an answer is made."""
    asked: list[Settings] = []

    def create(settings: Settings) -> tuple[Scripted, str]:
        asked.append(settings)
        return Scripted(), "a test"

    monkeypatch.setattr("cli.predict.create_engine", create)

    for device in ("cuda", "cpu"):
        predict("--image", inputs / "a.png", "--model-id", "a/b", "--device", device, "--output", inputs / "new" / "a")

    assert [(settings.checkpoint, settings.engine) for settings in asked] == [("a/b", "vllm"), ("a/b", "cpu")]
    assert (inputs / "new" / "a").read_text() == "page 320x200\n"


def test_words_alone_are_answered(inputs: Path) -> None:
    """The model converses too."""
    assert predict("--prompt", "Hi").stdout == "[user: Hi]\n"


def test_a_recording_is_written_down(inputs: Path) -> None:
    """Clip by clip, joined to one text."""
    result = predict("--audio", TALK)

    assert result.exit_code == 0
    assert set(result.stdout.split()) == {"one", "two"}


def test_json_tells_what_was_asked_and_used(inputs: Path) -> None:
    """With the engine, its model and its tokens."""
    out = inputs / "answer.json"

    result = predict("--image", inputs / "a.png", "--format", "json", "--output", out)

    told: dict[str, Any] = json.loads(out.read_text())
    assert (result.exit_code, result.stdout) == (0, "")
    assert told == {
        "name": "answer",
        "files": [str(inputs / "a.png")],
        "prompt": None,
        "text": "page 320x200",
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 10, "completion_tokens": 3},
        "engine": "scripted",
        "model": "scripted-1",
    }


def test_one_bad_request_does_not_end_a_batch(inputs: Path) -> None:
    """The others are answered, each into a file of its own; the fault is named, and the exit code tells."""
    lines = [
        {"image": "a.png"},
        {"name": "both", "images": ["a.png", "two.pdf"], "prompt": "Same?"},
        {"image": "bad.png"},
        {"image": "missing.png"},
        {"image": "a.png", "prompt": "cannot"},
        {"images": "a.png", "prompt": "raise"},
    ]
    batch, out = inputs / "requests.jsonl", inputs / "out"
    batch.write_text("\n".join(json.dumps(line) for line in lines))

    result = predict("--batch-input", batch, "--output-dir", out)

    assert result.exit_code == 1
    assert {p.name: p.read_text() for p in out.iterdir()} == {
        "1.txt": "page 320x200\n",
        "both.txt": "3 images: Same?\n",
    }
    assert "6 of 6 done" in result.stderr
    assert sorted(line.split(":")[1].strip() for line in result.stderr.splitlines() if "phi4:" in line) == [
        "3",
        "4",
        "5",
        "6",
    ]


def test_a_dead_engine_ends_a_batch(inputs: Path) -> None:
    """In one line: there is nobody left to ask."""
    batch = inputs / "requests.jsonl"
    batch.write_text('{"image": "a.png", "prompt": "die"}\n{"image": "a.png", "prompt": "sleep 60"}')

    result = predict("--batch-input", batch, "--output-dir", inputs / "out")

    assert (result.exit_code, result.stderr.count("phi4:")) == (1, 1)


def test_what_an_engine_prints_is_kept_off_stdout(inputs: Path) -> None:
    """vLLM and its processes log there, and NCCL greets: only the answer may be piped on."""
    command = [sys.executable, "-m", "cli", "predict", "--image", "a.png", "--prompt", "Seen?"]
    env = os.environ | {"PHI4_ENGINE": "tests.engines:Talkative", "PYTHONPATH": str(ROOT)}

    done = subprocess.run(command, cwd=inputs, env=env, capture_output=True, text=True, timeout=60)

    assert done.stdout == "1 images: Seen?\n"
    assert done.stderr.splitlines() == [
        "starting tests.engines:Talkative: PHI4_ENGINE names it",
        "loading",
        "a library says hello",
        "its process says hello",
        "answering",
    ]


def test_ctrl_c_waits_for_no_answer(inputs: Path) -> None:
    """What is being answered is told to stop, and what waits is not begun."""
    (inputs / "requests.jsonl").write_text('{"image": "a.png", "prompt": "sleep 60"}\n' * 20)
    command = [sys.executable, "-m", "cli", "predict", "--batch-input", "requests.jsonl", "--output-dir", "out"]
    env = os.environ | {"PHI4_ENGINE": "tests.engines:Talkative", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=inputs, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "answering\n" in iter(process.stderr.readline, "")
        process.send_signal(signal.SIGINT)

        code = process.wait(30)

    assert code == 130


def test_a_document_need_not_begin_at_the_first_byte(inputs: Path) -> None:
    """As for the service."""
    (inputs / "late.pdf").write_bytes(b"\n\n" + pdf(1))

    assert predict("--image", inputs / "late.pdf").stdout.startswith("page ")


def test_a_batch_is_cut_at_line_breaks_alone(inputs: Path) -> None:
    """JSON may hold other signs that separate lines, and files may begin with a mark of their encoding."""
    batch = inputs / "requests.jsonl"
    batch.write_text('\ufeff{"image": "a.png", "prompt": "a\u2028b"}\n', encoding="utf-8")

    assert predict("--batch-input", batch, "--output-dir", inputs / "out").exit_code == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[" * 100_000, "line 1: maximum recursion depth exceeded"),
        ("{", "line 1: Expecting property name"),
        ("[]", "line 1: Input should be a valid dictionary"),
        (
            '{"image": "a.png", "color": 1}',
            "line 1: color: Extra inputs are not permitted (a line takes audio, ",
        ),
        ('{"name": "../a", "image": "a.png"}', "'../a' is no name for a file"),
        ('{"name": "a\\u0000", "image": "a.png"}', "is no name for a file"),
        ('{"image": 7}', "line 1: image: Input should be a valid string"),
        ('{"image": "a.png", "prompt": 7}', "line 1: prompt: Input should be a valid string"),
        ('{"image": "a.png", "prompt": "\\ud800"}', "line 1: prompt: Input should be a valid string"),
        ('{"image": "a.png", "max_tokens": "6"}', "line 1: max_tokens: Input should be a valid integer"),
        ('{"image": "a.png", "max_tokens": 0}', "line 1: max_tokens: Input should be greater than or equal to 1"),
        ('{"image": "a.png"}\n{"name": "nothing"}', "line 2: there is nothing to answer"),
        ("\udcff", "cannot be read: 'utf-8' codec can't decode byte 0xff"),
        ('{"name": "a", "image": "a.png"}\n{"name": "a", "image": "a.png"}', "the name 'a' is given twice"),
        ("", "holds no requests"),
    ],
)
def test_a_batch_that_cannot_be_read_says_where(inputs: Path, line: str, message: str) -> None:
    """Before an engine is loaded for it."""
    batch = inputs / "requests.jsonl"
    batch.write_bytes(line.encode(errors="surrogateescape"))

    result = predict("--batch-input", batch, "--output-dir", inputs / "out")

    assert result.exit_code == 1
    assert not (inputs / "out").exists()
    assert message in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give --image, --audio or --prompt"),
        (["--image", "a.png", "--batch-input", "a.png"], 2, "or --batch-input alone"),
        (["--prompt", "Hi", "--batch-input", "a.png", "--output-dir", "x"], 2, "or --batch-input alone"),
        (["--batch-input", "a.png", "--output-dir", "x", "--output", "y"], 2, "are not for --batch-input"),
        (["--image", "a.png", "--output", "a.png/b/c"], 1, "a.png/b cannot be made: Not a directory"),
        (["--batch-input", "a.png"], 2, "--batch-input and --output-dir go together"),
        (["--image", "a.png", "--output-dir", "x"], 2, "--batch-input and --output-dir go together"),
        (["--image", "nothing.png"], 2, "does not exist"),
        (["--image", "."], 2, "is a folder"),
        (["--image", "a.png", "--device", "mps"], 2, "no engine here runs on mps"),
        (["--image", "bad.png"], 1, "cannot be read"),
        (["--image", "a.png", "--audio", str(TALK)], 1, "need a prompt"),
        (["--image", "a.png", "--prompt", "fail"], 1, "failed on purpose"),
    ],
)
def test_what_cannot_be_answered_says_why(
    inputs: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    """One line, and no traceback."""
    monkeypatch.chdir(inputs)

    result = predict(*arguments)

    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_an_engine_that_is_not_there_is_named(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a worker."""
    monkeypatch.setenv("PHI4_ENGINE", "nothing")

    result = predict("--image", inputs / "a.png")

    assert result.exit_code == 1
    assert 'PHI4_ENGINE is "nothing"' in result.stderr


def test_pages_are_made_when_their_turn_comes(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A document of a thousand pages takes the memory of one; for one question all are needed, and bounded."""
    (inputs / "three.pdf").write_bytes(pdf(3))
    made = []

    class Watching(Scripted):
        def run(self, task: Task, call: Call) -> Answer:
            made.append(len(drawn))
            return super().run(task, call)

    drawn: list[int] = []
    pages_of = predicting._pages_of

    def watched(path: Path, settings: Settings) -> Iterator[Image]:
        for page in pages_of(path, settings):
            drawn.append(1)
            yield page

    monkeypatch.setattr(predicting, "_pages_of", watched)
    request = predicting.Request("a", (inputs / "three.pdf",))

    predicting.answer(Watching(), request, load(), threading.Event())

    assert made == [1, 2, 3]
    question = predicting.Request("a", (inputs / "three.pdf",), prompt="?")
    with pytest.raises(TooManyPages, match="more than 2 pages"):
        predicting.answer(Watching(), question, load(max_pages=2), threading.Event())
