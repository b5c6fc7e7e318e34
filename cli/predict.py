"""`phi4 predict`: answers about files without a service, from an engine in this very process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, BinaryIO, Literal, cast

import numpy as np
from PIL.Image import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from phi4.errors import InputError, Phi4Error
from phi4.settings import Settings
from worker.engines.base import Answer, AskImages, Call, Chat, Engine, ReadPage, Task, TranscribeClip, Turn
from worker.engines.choose import create_engine
from worker.media import audio, images, pdf
from worker.outgoing import Outgoing

Format = Literal["txt", "json"]
_DPI = 150


@dataclass(frozen=True, slots=True)
class Request:
    """One thing to answer: files, and what is asked of them; without a prompt they are read or written down."""

    name: str
    images: tuple[str | Path, ...] = ()  #: a string may be a URL
    audio: Path | None = None
    prompt: str | None = None
    max_tokens: int | None = None


class BadRequests(InputError):
    """A line of the batch cannot be used."""

    code = "bad_requests"


def read_batch(path: Path) -> list[Request]:
    """Read requests, one JSON object a line: `image` or `images`, `audio`, `prompt`, `max_tokens`, and a `name` for the
    result's file (by default the line's number). Files are looked for beside the batch;
    images may be URLs. Raises `BadRequests`.
    """
    lines = [(n, line) for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if line.strip()]
    requests = [_read_line(path, number, line) for number, line in lines]
    names = [request.name for request in requests]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise BadRequests(f"{path}: the name {repeated!r} is given twice.")
    if not requests:
        raise BadRequests(f"{path} holds no requests.")
    return requests


def _read_line(path: Path, number: int, line: str) -> Request:
    try:
        fields = json.loads(line)
        known = {"name", "image", "images", "audio", "prompt", "max_tokens"}
        if not isinstance(fields, dict) or (set(fields) - known):
            raise ValueError(f"takes {', '.join(sorted(known))}")
        pictures = [*fields.get("images", []), *([fields["image"]] if "image" in fields else [])]
        name = str(fields.get("name", number))
        if Path(name).name != name or name.startswith("."):
            raise ValueError(f"{name!r} is no name for a file")
        sound = path.parent / fields["audio"] if "audio" in fields else None
        sources = tuple(p if _is_url(p) else path.parent / p for p in pictures)
        return Request(name, sources, sound, fields.get("prompt"), fields.get("max_tokens"))
    except (ValueError, TypeError) as error:
        raise BadRequests(f"{path}, line {number}: {error}.") from None


def predict(
    settings: Settings, requests: Sequence[Request], write: Callable[[Request, dict[str, Any]], None]
) -> dict[str, str]:
    """Answer requests, several at once, handing each result to `write`; returns what went wrong, by request.

    Raises `EngineUnavailable` and `EngineError` when there is no engine.
    """
    faults: dict[str, str] = {}
    engine, reason = create_engine(settings)
    with _bar(len(requests)) as (say, advance):
        say(f"starting {reason}")
        engine.start(lambda stage: say(f"{stage} {engine.model}"))
        say("answering")
        try:
            with ThreadPoolExecutor(engine.slots) as pool:
                running = {pool.submit(answer, engine, request, settings): request for request in requests}
                for done in as_completed(running):
                    request = running[done]
                    try:
                        write(request, done.result())
                    except (Phi4Error, OSError) as error:
                        faults[request.name] = str(error)
                    advance()
        finally:
            engine.stop()
    return faults


@contextmanager
def _bar(total: int) -> Iterator[tuple[Callable[[str], None], Callable[[], None]]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=total)
        yield lambda words: progress.update(bar, description=words), lambda: progress.advance(bar)


def answer(engine: Engine, request: Request, settings: Settings) -> dict[str, Any]:
    """Answer one request. Raises `Phi4Error`, or `OSError` for a file that cannot be opened."""
    pages = tuple(page for path in request.images for page in _pages(path, settings))
    clips = _clips(request.audio, settings) if request.audio else []
    answers = [engine.run(task, Call(request_id=f"predict-{request.name}")) for task in _tasks(request, pages, clips)]
    return {
        "name": request.name,
        "files": [str(path) for path in (*request.images, *filter(None, [request.audio]))],
        "prompt": request.prompt,
        "text": "\n\n".join(a.text for a in answers) if pages else " ".join(a.text for a in answers),
        "finish_reason": "length" if any(a.finish_reason == "length" for a in answers) else "stop",
        "usage": _usage(answers),
        "engine": engine.name,
        "model": engine.model,
    }


def _tasks(request: Request, pages: tuple[Image, ...], clips: list[audio.Clip]) -> list[Task]:
    """Without a prompt every page and clip is a task of its own; with one, all of them are one question."""
    limit = request.max_tokens
    if request.prompt is None:
        if pages and clips:
            raise InputError("Images and audio together need a prompt.")
        read: list[Task] = [ReadPage(page, max_tokens=limit) for page in pages]
        return read or [TranscribeClip(clip.samples, max_tokens=limit) for clip in clips]
    if pages and not request.audio:
        return [AskImages(pages, request.prompt, max_tokens=limit)]
    if request.audio and not clips:
        raise InputError("There is no speech in the recording.")
    # Without its silences: the model takes minutes of sound in one piece.
    sound = (np.concatenate([clip.samples for clip in clips]),) if clips else ()
    return [Chat((Turn("user", (*pages, *sound, request.prompt)),), max_tokens=limit)]


def _pages(source: str | Path, settings: Settings) -> Iterator[Image]:
    if not _is_url(source):
        yield from _pages_of(Path(source), settings)
        return
    with NamedTemporaryFile(prefix="phi4-predict-") as file:
        Outgoing(settings.allowed_hosts).download(
            str(source), cast(BinaryIO, file), most_bytes=settings.max_body_mb << 20, seconds=settings.fetch_seconds
        )
        file.flush()
        yield from _pages_of(Path(file.name), settings)


def _pages_of(path: Path, settings: Settings) -> Iterator[Image]:
    with path.open("rb") as file:
        is_pdf = file.read(5) == b"%PDF-"
    if not is_pdf:
        yield from images.frames(path, max_pixels=settings.max_pixels)
        return
    for _, page in pdf.pages(path, range(1, pdf.page_count(path) + 1), dpi=_DPI, max_pixels=settings.max_pixels):
        if isinstance(page, InputError):
            raise page
        yield page


def _is_url(source: object) -> bool:
    return isinstance(source, str) and source.startswith(("http://", "https://"))


def _clips(path: Path, settings: Settings) -> list[audio.Clip]:
    with audio.open_recording(path, max_seconds=settings.max_audio_seconds) as recording:
        return list(recording.clips())


def _usage(answers: Sequence[Answer]) -> dict[str, int]:
    return {
        "prompt_tokens": sum(a.prompt_tokens for a in answers),
        "completion_tokens": sum(a.completion_tokens for a in answers),
    }


def render(result: Mapping[str, Any], format: Format) -> str:
    """Write a result as the words alone, or as JSON."""
    if format == "txt":
        return f"{result['text']}\n"
    return json.dumps(result, ensure_ascii=False, indent=2) + "\n"
