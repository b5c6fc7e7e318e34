"""The `phi4` command: its words and options; what they do is imported when they are used."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli import engine_commands, job_commands, keys
from cli.errors import plain_errors
from cli.options import Json, Url
from cli.plan import plan
from phi4 import __version__

if TYPE_CHECKING:
    from cli.delivery import Asked, Wanted
    from cli.inputs import Source
    from phi4.params import JobType
    from phi4.settings import Settings

_OPTIONS: dict[str, Any] = {"no_args_is_help": True, "add_completion": False, "pretty_exceptions_enable": False}
# Rich would draw boxes around the help, and take a quarter of a second to be loaded for it.
app = typer.Typer(help="OCR, visual question answering and speech recognition.", rich_markup_mode=None, **_OPTIONS)
_COMPLETE = "_PHI4_COMPLETE"
if _COMPLETE in os.environ:  # a shell asks; typer does this by itself only with options that install completion
    from typer._completion_classes import completion_init

    completion_init()
app.add_typer(job_commands.app, name="jobs")
app.add_typer(engine_commands.app)
app.add_typer(keys.app, name="keys")


_Timeout = Annotated[
    float | None, typer.Option(min=1, help="Seconds after which jobs that have not ended are cancelled.")
]
_Out = Annotated[
    Path | None, typer.Option("--out", file_okay=False, help="Write a file for each result into this folder.")
]
_Files = Annotated[
    list[Path],
    typer.Argument(metavar="FILE", show_default=False, help="Files, folders, patterns, or - for what is piped in."),
]
_AtOnce = Annotated[int, typer.Option(min=1, max=1_000, help="Jobs that wait or run at a time.")]
_Again = Annotated[bool, typer.Option("--again", help="Also what has a result in --out that is newer than its input.")]
_Pages = Annotated[str | None, typer.Option(help='Pages of a document, such as "1-3,7".')]
_SUFFIXES = {"markdown": ".md", "text": ".txt", "srt": ".srt", "vtt": ".vtt", "json": ".json"}


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"phi4 {__version__}")
        raise typer.Exit


@app.callback()
def _main(version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_version)] = False) -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a letter must not end a job that took an hour.
            stream.reconfigure(errors="backslashreplace")


@app.command()
def ocr(
    files: _Files,
    format: Annotated[Literal["markdown", "text"], typer.Option(help="What each page is written as.")] = "markdown",
    pages: _Pages = None,
    out: _Out = None,
    url: Url = "",
    as_json: Json = False,
    timeout: _Timeout = None,
    at_once: _AtOnce = 32,
    again: _Again = False,
) -> None:
    """Read the text of images and PDFs."""
    from cli.delivery import Wanted

    params = _params("ocr", format=format, pages=pages)
    wanted = Wanted(format, _SUFFIXES[format], as_json, out, timeout, at_once, again)
    _run(_asked(files, "ocr", params), wanted, url)


@app.command()
def ask(
    files: _Files,
    question: Annotated[str, typer.Option("--question", "-q", show_default=False)],
    schema: Annotated[
        Path | None, typer.Option(dir_okay=False, exists=True, help="A JSON Schema that the answer must fit.")
    ] = None,
    pages: _Pages = None,
    url: Url = "",
    as_json: Json = False,
    timeout: _Timeout = None,
) -> None:
    """Ask one question about images and PDFs, all of them together."""
    from cli.delivery import Asked, Wanted

    params = _params("vqa", question=question, pages=pages, response_schema=_read_schema(schema))
    sources = _found(files, "vqa")
    name = ", ".join(source.name for source in sources)
    _run(
        [Asked(name, "vqa", tuple(source.path for source in sources), params)],
        Wanted("text", as_json=as_json, timeout=timeout),
        url,
    )


@app.command()
def transcribe(
    files: _Files,
    format: Annotated[Literal["text", "srt", "vtt", "json"], typer.Option(help="What to write.")] = "text",
    task: Annotated[Literal["transcribe", "translate"], typer.Option()] = "transcribe",
    language: Annotated[str | None, typer.Option(help="What is spoken, such as de; found out by default.")] = None,
    to: Annotated[str | None, typer.Option(help="What --task translate writes, such as fr.  [default: en]")] = None,
    out: _Out = None,
    url: Url = "",
    as_json: Json = False,
    timeout: _Timeout = None,
    at_once: _AtOnce = 32,
    again: _Again = False,
) -> None:
    """Write down what is said in recordings."""
    from cli.delivery import Wanted

    if to is not None and task != "translate":
        raise typer.BadParameter("--to needs --task translate; a transcript is in the language that is spoken.")
    params = _params("asr", task=task, language=language, target_language=to)
    wanted = Wanted(format, _SUFFIXES[format], as_json, out, timeout, at_once, again)
    _run(_asked(files, "asr", params), wanted, url)


_Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Where to listen.  [default: $PORT, or 8000]")]
_DataDir = Annotated[Path | None, typer.Option(help="Where to keep jobs.  [default: $PHI4_DATA_DIR, or .phi4]")]


@app.command()
def up(port: _Port = None, data_dir: _DataDir = None) -> None:
    """Run the whole service on this machine until Ctrl-C."""
    from cli import local

    with plain_errors():
        code = local.up(_settings(port=port, data_dir=data_dir))
    raise typer.Exit(code)


@app.command()
def demo(
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Where to listen.  [default: $PORT, or a free one]")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where to keep jobs.  [default: $PHI4_DATA_DIR, or a temporary folder]")
    ] = None,
) -> None:
    """Start a service, send it the examples, and stop it again."""
    from cli.demo import demo as run_demo

    with plain_errors():
        code = run_demo(_settings(port=port, data_dir=data_dir))
    raise typer.Exit(code)


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="One JSON object for each check.")] = False) -> None:
    """Check what the service needs here, and say what to do."""
    from cli.doctor import examine

    raise typer.Exit(0 if examine(as_json=as_json) else 1)


@app.command()
def completion(shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument()]) -> None:
    """Complete words in a shell: eval "$(phi4 completion bash)"."""
    from typer._completion_shared import get_completion_script

    typer.echo(get_completion_script(prog_name="phi4", complete_var=_COMPLETE, shell=shell))


app.command()(plan)


def _found(files: list[Path], job_type: JobType) -> list[Source]:
    from cli.inputs import NothingFound, found

    try:
        return found(files, job_type)
    except NothingFound as error:
        raise typer.BadParameter(str(error)) from None


def _asked(files: list[Path], job_type: JobType, params: Mapping[str, Any]) -> list[Asked]:
    from cli.delivery import Asked

    sources = _found(files, job_type)
    return [Asked(one.name, job_type, (one.path,), params, place=one.place) for one in sources]


def _params(job_type: JobType, **given: Any) -> Mapping[str, Any]:
    """Take the params that were given, refusing here what the service would refuse for every file."""
    from pydantic import ValidationError

    from phi4.params import PARAMS

    params = {name: value for name, value in given.items() if value is not None}
    try:
        PARAMS[job_type].model_validate(params)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise typer.BadParameter(f"{wrong['loc'][0]}: {wrong['msg'].removeprefix('Value error, ')}") from None
    return params


def _read_schema(path: Path | None) -> Any:
    try:
        return None if path is None else json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise typer.BadParameter(f"{path} is not JSON: {error}.") from None
    except RecursionError:
        raise typer.BadParameter(f"{path} is nested too deep.") from None


def _run(asked: list[Asked], wanted: Wanted, url: str) -> None:
    from cli.jobs import run

    with plain_errors():
        raise typer.Exit(run(asked, wanted, url=url))


def _settings(**given: object) -> Settings:
    from phi4.settings import load

    return load(**{name: value for name, value in given.items() if value is not None})
