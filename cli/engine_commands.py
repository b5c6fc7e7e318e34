"""The words of `phi4` that need an engine but no service: `predict` and `serve`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.errors import plain_errors

if TYPE_CHECKING:
    from cli.predict import Request
    from phi4.settings import Settings

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_FILE: dict[str, Any] = {"exists": True, "dir_okay": False, "show_default": False}
#: What runs on a device; the original example names the device, this service the engine.
_ENGINES = {"cuda": "vllm", "cpu": "cpu"}


def _there(sources: list[str] | None) -> list[str] | None:
    """Check that each is a URL or a file that is there."""
    for source in sources or ():
        if not source.startswith(("http://", "https://")) and not Path(source).is_file():
            raise typer.BadParameter(f"File {source!r} does not exist, or is a folder.")
    return sources


@app.command()
def predict(
    image: Annotated[
        list[str] | None,
        typer.Option("--image", "--images", callback=_there, help="An image or a PDF, or its URL; may be repeated."),
    ] = None,
    audio: Annotated[Path | None, typer.Option(help="A recording.", **_FILE)] = None,
    prompt: Annotated[
        str | None, typer.Option(help="What is asked.  [default: read pages, write down speech]", show_default=False)
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, show_default=False)] = None,
    output: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write here.  [default: stdout]", show_default=False)
    ] = None,
    format: Annotated[Literal["txt", "json"], typer.Option(help="What to write.")] = "txt",
    batch_input: Annotated[Path | None, typer.Option(help="Requests, one JSON object a line.", **_FILE)] = None,
    output_dir: Annotated[
        Path | None, typer.Option(file_okay=False, help="Where the batch's answers go.", show_default=False)
    ] = None,
    model_id: Annotated[
        str | None, typer.Option(help="[default: $PHI4_MODEL_ID, or microsoft/Phi-4-multimodal-instruct]")
    ] = None,
    device: Annotated[
        Literal["cuda", "mps", "cpu"] | None,
        typer.Option(help="cuda: Phi-4 on vLLM; cpu: the cpu engine, which reads print.  [default: $PHI4_ENGINE]"),
    ] = None,
    more: Annotated[list[str] | None, typer.Argument(metavar="[IMAGE]...", callback=_there, hidden=True)] = None,
) -> None:
    """Answer about files without a service: load, answer, end."""
    pictures = (*(image or []), *(more or []))  # `--images a.png b.png`, as a shell's glob gives them
    alone = pictures or audio or prompt is not None
    if (batch_input is None) == (not alone):
        raise typer.BadParameter("give --image, --audio or --prompt, or --batch-input alone")
    if (batch_input is None) != (output_dir is None):
        raise typer.BadParameter("--batch-input and --output-dir go together")
    if batch_input is not None and (output is not None or max_tokens is not None):
        raise typer.BadParameter("--output and --max-tokens are not for --batch-input")
    if device == "mps":
        raise typer.BadParameter("no engine here runs on mps; leave --device out, or use cpu")
    with plain_errors():
        from cli.predict import Request, read_batch
        from phi4.settings import load

        chosen = {"checkpoint": model_id, "engine": device and _ENGINES[device]}
        settings = load(**{name: value for name, value in chosen.items() if value})
        asked = read_batch(batch_input) if batch_input else [Request("answer", pictures, audio, prompt, max_tokens)]
        code = _predict(settings, asked, output, output_dir, format)
    raise typer.Exit(code)


def _predict(
    settings: Settings,
    asked: list[Request],
    output: Path | None,
    folder: Path | None,
    format: Literal["txt", "json"],
) -> int:
    from cli import predict, show

    printed: list[str] = []

    def write(request: Request, result: dict[str, Any]) -> None:
        text = predict.render(result, format)
        if folder is not None:
            (folder / f"{request.name}.{format}").write_text(text, encoding="utf-8")
        elif output is not None:
            output.write_text(text, encoding="utf-8")
        else:
            printed.append(text)

    predict.make_folder(folder or (output and output.parent))
    with _stdout_for_answers():
        faults = predict.predict(settings, asked, write)
    for text in printed:
        show.write(text)
    for name, message in faults.items():
        show.complain(message if len(asked) == 1 else f"{name}: {message}")
    return 1 if faults else 0


@contextmanager
def _stdout_for_answers() -> Iterator[None]:
    """Send what an engine, its processes and its native libraries print to stderr meanwhile."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


@app.command()
def serve(
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="[default: $PORT, or 8000]")] = None,
) -> None:
    """Run vLLM's own OpenAI server, with adapters chosen by input."""
    with plain_errors():
        from cli.serve import serve as become_server
        from phi4.settings import load

        become_server(load(**({} if port is None else {"port": port})))
