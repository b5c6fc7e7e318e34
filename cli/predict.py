"""`phi4 predict`: answers about files without a service, from an engine in this very process."""

from __future__ import annotations

import itertools
import json
import logging
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, BinaryIO, Literal, cast

import numpy as np
from PIL.Image import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli import show
from phi4.errors import EngineDead, InputError, Phi4Error, TooManyPages
from phi4.media_type import HEAD_BYTES, sniff
from phi4.results import joined
from phi4.settings import Settings
from worker.engines.base import Answer, AskImages, Call, Chat, Engine, ReadPage, Task, TranscribeClip, Turn
from worker.engines.choose import create_engine
from worker.media import audio, images, pdf
from worker.outgoing import Outgoing

_log = logging.getLogger(__name__)
Format = Literal["txt", "json"]
_DPI = 150
_FILE_NAME = re.compile(r"[^./\\\x00-\x1f][^/\\\x00-\x1f]{0,199}")


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


class _Line(BaseModel):
    """What a line of a batch may hold."""

    model_config = ConfigDict(strict=True, extra="forbid")

    name: str | int | None = None
    image: str | None = None
    images: list[str] = Field(default_factory=list)
    audio: str | None = None
    prompt: str | None = Field(None, min_length=1)
    max_tokens: int | None = Field(None, ge=1)

    @field_validator("images", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("name")
    @classmethod
    def _of_a_file(cls, value: str | int | None) -> str | int | None:
        if value is not None and not _FILE_NAME.fullmatch(str(value)):
            raise ValueError(f"{value!r} is no name for a file")
        return value

    @model_validator(mode="after")
    def _asks_something(self) -> _Line:
        if not (self.image or self.images or self.audio or self.prompt):
            raise ValueError("there is nothing to answer")
        return self


def read_batch(path: Path) -> list[Request]:
    """Read requests, one JSON object a line: `image` or `images`, `audio`, `prompt`, `max_tokens`, and a `name` for the
    result's file (by default the line's number). Files are looked for beside the batch;
    images may be URLs. Raises `BadRequests`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequests(f"{path} cannot be read: {error}.") from None
    requests = [_read_line(path, n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    names = [request.name for request in requests]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise BadRequests(f"{path}: the name {repeated!r} is given twice.")
    if not requests:
        raise BadRequests(f"{path} holds no requests.")
    return requests


def _read_line(path: Path, number: int, text: str) -> Request:
    try:
        line = _Line.model_validate(json.loads(text))
    except ValidationError as error:
        first = error.errors()[0]
        field = "".join(f"{place}: " for place in first["loc"][:1])
        why = first["msg"].removeprefix("Value error, ")
        known = ", ".join(sorted(_Line.model_fields))
        raise BadRequests(f"{path}, line {number}: {field}{why} (a line takes {known}).") from None
    except (ValueError, RecursionError) as error:
        raise BadRequests(f"{path}, line {number}: {error}.") from None
    pictures = [*line.images, *([line.image] if line.image is not None else [])]
    return Request(
        str(number if line.name is None else line.name),
        tuple(picture if _is_url(picture) else path.parent / picture for picture in pictures),
        path.parent / line.audio if line.audio is not None else None,
        line.prompt,
        line.max_tokens,
    )


def make_folder(folder: Path | None) -> None:
    """Make where answers go, before an engine is loaded for them. Raises `BadRequests`."""
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadRequests(f"{folder} cannot be made: {error.strerror}.") from None


def predict(
    settings: Settings, requests: Sequence[Request], write: Callable[[Request, dict[str, Any]], None]
) -> dict[str, str]:
    """Answer requests, several at once, handing each result to `write`; returns what went wrong, by request.

    Raises `EngineUnavailable` and `EngineError` when there is no engine, `EngineDead` when it dies.
    """
    engine, reason = create_engine(settings)
    with _bar(len(requests)) as (say, advance):
        say(f"starting {reason}")
        try:
            engine.start(lambda stage: say(f"{stage} {engine.model}"))
            say("answering")
            return _answer_all(engine, requests, settings, write, advance)
        finally:
            engine.stop()


def _answer_all(
    engine: Engine,
    requests: Sequence[Request],
    settings: Settings,
    write: Callable[[Request, dict[str, Any]], None],
    advance: Callable[[], None],
) -> dict[str, str]:
    faults: dict[str, str] = {}
    stopped = threading.Event()
    pool = ThreadPoolExecutor(engine.slots)
    try:
        with _without_interruption():
            running = {pool.submit(answer, engine, request, settings, stopped): request for request in requests}
        for done in as_completed(running):
            request = running[done]
            try:
                write(request, done.result())
            except EngineDead:
                raise
            except (Phi4Error, OSError) as error:
                faults[request.name] = str(error)
            except Exception as error:  # whatever an engine throws is one answer's failure, not the batch's end
                _log.exception("%s failed", request.name)
                faults[request.name] = f"The engine failed: {type(error).__name__}."
            advance()
    finally:
        # After Ctrl-C, or without an engine, nobody waits for the rest.
        stopped.set()
        pool.shutdown(cancel_futures=True)
    return faults


@contextmanager
def _without_interruption() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block: a pool forgets a thread that it starts just then, which never ends."""
    # Not by a mask: a thread without one would be given the signal, and tell the main thread all the same.
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


@contextmanager
def _bar(total: int) -> Iterator[tuple[Callable[[str], None], Callable[[], None]]]:
    """Show what is done: a bar on a terminal, else a line for each stage and each twentieth of the requests."""
    if not sys.stderr.isatty():
        done = itertools.count(1)
        yield show.say, lambda: _count(next(done), total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=total)
        yield lambda words: progress.update(bar, description=words), lambda: progress.advance(bar)


def _count(done: int, total: int) -> None:
    if total > 1 and (done == total or done % max(1, total // 20) == 0):
        show.say(f"{done} of {total} done")


def answer(engine: Engine, request: Request, settings: Settings, stopped: threading.Event) -> dict[str, Any]:
    """Answer one request. Raises `Phi4Error`, or `OSError` for a file that cannot be opened."""
    call = Call(request_id=f"predict-{request.name}", cancelled=stopped)
    answers = [engine.run(task, call) for task in _tasks(request, settings)]
    return {
        "name": request.name,
        "files": [str(path) for path in (*request.images, *filter(None, [request.audio]))],
        "prompt": request.prompt,
        "text": "\n\n".join(a.text for a in answers) if request.images else joined(a.text for a in answers),
        "finish_reason": "length" if any(a.finish_reason == "length" for a in answers) else "stop",
        "usage": _usage(answers),
        "engine": engine.name,
        "model": engine.model,
    }


def _tasks(request: Request, settings: Settings) -> Iterator[Task]:
    """Without a prompt every page and clip is a task of its own, made when its turn comes; with one, all are one."""
    if request.prompt is not None:
        yield _question(request, request.prompt, settings)
        return
    if request.images and request.audio:
        raise InputError("Images and audio together need a prompt.")
    for page in _all_pages(request, settings):
        yield ReadPage(page, max_tokens=request.max_tokens)
    for clip in _clips(request.audio, settings):
        yield TranscribeClip(clip.samples, max_tokens=request.max_tokens)


def _question(request: Request, prompt: str, settings: Settings) -> Task:
    pages = tuple(itertools.islice(_all_pages(request, settings), settings.max_pages + 1))
    if len(pages) > settings.max_pages:
        raise TooManyPages(f"There are more than {settings.max_pages} pages (PHI4_MAX_PAGES).")
    clips = _clips(request.audio, settings)
    if pages and not request.audio:
        return AskImages(pages, prompt, max_tokens=request.max_tokens)
    if request.audio and not clips:
        raise InputError("There is no speech in the recording.")
    # Without its silences: the model takes minutes of sound in one piece.
    sound = (np.concatenate([clip.samples for clip in clips]),) if clips else ()
    return Chat((Turn("user", (*pages, *sound, prompt)),), max_tokens=request.max_tokens)


def _all_pages(request: Request, settings: Settings) -> Iterator[Image]:
    return itertools.chain.from_iterable(_pages(path, settings) for path in request.images)


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
        media = sniff(file.read(HEAD_BYTES))
    if media is None or media.kind != "pdf":
        yield from images.frames(path, max_pixels=settings.max_pixels)
        return
    for _, page in pdf.pages(path, range(1, pdf.page_count(path) + 1), dpi=_DPI, max_pixels=settings.max_pixels):
        if isinstance(page, InputError):
            raise page
        yield page


def _is_url(source: object) -> bool:
    return isinstance(source, str) and source.startswith(("http://", "https://"))


def _clips(path: Path | None, settings: Settings) -> list[audio.Clip]:
    """All of them, before the first one is asked about: damage may lie at a recording's end."""
    if path is None:
        return []
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
