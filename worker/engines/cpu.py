"""The engine that needs no GPU and no download: RapidOCR for pages, Moonshine for English speech."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from phi4.errors import Cancelled, CannotAnswer, EngineDead, EngineError
from worker.engines.asr import ClipWriter, probe_clip
from worker.engines.base import (
    Answer,
    AskImages,
    Call,
    Chat,
    Modality,
    ReadPage,
    Task,
    TranscribeClip,
    Turn,
    as_floats,
)
from worker.engines.filled_schema import check, fill
from worker.engines.layout import Page
from worker.engines.markdown import to_markdown
from worker.engines.ocr import OCR_OPTIONS, PageReader, new_ocr
from worker.engines.printed_answer import find_answer

__all__ = ["OCR_OPTIONS", "CpuEngine", "new_ocr"]

#: Pages in work at once: while one is searched for lines, the threads read the lines of another.
MAX_SLOTS = 2
_PROBE_WORD = "READY"
#: What a picture without words asks for.
_READ_ALL = "What does it say?"


class _Loaded(NamedTuple):
    pages: PageReader
    clips: ClipWriter


class CpuEngine:
    """Reads pages, answers from printed text, and writes down English speech, on `threads` threads of the processor."""

    name = "cpu"
    model = "rapidocr+moonshine-tiny-en"
    modalities: frozenset[Modality] = frozenset({"vision", "speech", "text"})  #: text, to refuse it

    def __init__(self, *, threads: int) -> None:
        self._threads = threads
        self.slots = min(threads, MAX_SLOTS)
        self.ahead = 0
        self.most_pixels: int | None = None  # small print is read from the page itself
        self._loaded: _Loaded | None = None

    def start(self, stage: Callable[[str], None]) -> None:
        """Load both models and let each answer; raises `EngineError` when one does not."""
        stage("loading")
        self._loaded = _Loaded(PageReader(self._threads), ClipWriter())
        stage("probing")
        if _PROBE_WORD not in self.run(ReadPage(_probe_page(), format="text"), Call()).text:
            raise EngineError("The OCR models do not read a word that stands clearly on a page.")
        if not self.run(TranscribeClip(probe_clip()), Call()).text:
            raise EngineError("The speech model hears nothing in clear speech.")

    def run(self, task: Task, call: Call) -> Answer:
        """Answer `task`; may be called by many threads. Raises `CannotAnswer`, `EngineDead` or `Cancelled`."""
        loaded = self._alive()
        _stop_if_cancelled(call)
        match task:
            case ReadPage():
                answer = _read_page(task, loaded, call)
            case AskImages():
                answer = _ask_images(task, loaded, call)
            case TranscribeClip():
                answer = _transcribe(task, loaded)
            case Chat():
                answer = _chat(task, loaded, call)
        _stop_if_cancelled(call)
        call.on_delta(answer.text)
        return answer

    def check(self) -> None:
        """Raise `EngineDead` when the engine was never started, or was stopped."""
        self._alive()

    def stop(self) -> None:
        """Free the models and end the threads; stopping twice does no harm."""
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            loaded.pages.close()
            loaded.clips.close()

    def _alive(self) -> _Loaded:
        if self._loaded is None:
            raise EngineDead("The cpu engine is not running.")
        return self._loaded


def _stop_if_cancelled(call: Call) -> None:
    if call.cancelled.is_set():
        raise Cancelled


def _read_page(task: ReadPage, loaded: _Loaded, call: Call) -> Answer:
    if task.prompt is not None:
        raise CannotAnswer("The cpu engine reads what is printed and follows no prompt; leave `prompt` out.")
    page = loaded.pages.read(task.image, call.cancelled)
    return Answer(to_markdown(page) if task.format == "markdown" else page.text, lines=page.lines)


def _ask_images(task: AskImages, loaded: _Loaded, call: Call) -> Answer:
    if task.response_schema is not None:
        check(task.response_schema)  # before the seconds that reading takes
    pages: list[Page] = [loaded.pages.read(image, call.cancelled) for image in task.images]
    if task.response_schema is not None:
        text, data = fill(task.response_schema, pages)
        return Answer(text, data=data)
    return Answer(find_answer(task.question, pages))


def _transcribe(task: TranscribeClip, loaded: _Loaded) -> Answer:
    if task.task == "translate":
        raise CannotAnswer("The cpu engine cannot translate; it writes down English speech in English.")
    if task.language not in (None, "en"):
        raise CannotAnswer(f'The cpu engine understands English speech only, and `language` is "{task.language}".')
    spans = loaded.clips.write_down(as_floats(task.samples))
    return Answer(" ".join(span.text for span in spans), spans=spans, language="en")


def _chat(task: Chat, loaded: _Loaded, call: Call) -> Answer:
    """Answer a question about pictures, or write down a conversation that is one recording; nothing else."""
    heard = [part for turn in task.turns for part in turn.content if isinstance(part, np.ndarray)]
    if heard and len(heard) == sum(len(turn.content) for turn in task.turns):
        return _joined([_transcribe(TranscribeClip(clip), loaded) for clip in heard])
    if heard:
        raise CannotAnswer("The cpu engine can write a recording down; it cannot answer questions about it.")
    images = _images(task.turns)
    if not images:
        raise CannotAnswer("The cpu engine holds no conversations: it answers questions about pictures with text.")
    asked = next(turn for turn in reversed(task.turns) if turn.role == "user")
    words = " ".join(part for part in asked.content if isinstance(part, str)).strip()
    answer = _ask_images(AskImages(images, words or _READ_ALL, response_schema=task.response_schema), loaded, call)
    return replace(answer, text=_until(answer.text, task.stop))


def _images(turns: tuple[Turn, ...]) -> tuple[Image.Image, ...]:
    """The pictures that the last question is about: its own, else those shown last."""
    shown = (tuple(p for p in turn.content if isinstance(p, Image.Image)) for turn in reversed(turns))
    return next(filter(None, shown), ())


def _joined(answers: list[Answer]) -> Answer:
    return Answer(" ".join(answer.text for answer in answers if answer.text), language="en")


def _until(text: str, stop: tuple[str, ...]) -> str:
    """Cut a text before the first of some strings."""
    return min((text.partition(mark)[0] for mark in stop), key=len, default=text)


def _probe_page() -> Image.Image:
    page = Image.new("RGB", (320, 96), "white")
    ImageDraw.Draw(page).text((40, 24), _PROBE_WORD, "black", ImageFont.load_default(40))
    return page
