"""The door between the worker and an engine: what is asked, what comes back, and the Protocol every engine obeys."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

#: Mono sound at 16 kHz: 16 bits a sample, as preparation keeps it, or float32 in [-1, 1].
Sound = NDArray[np.int16] | NDArray[np.float32]
FULL_SCALE = 32_768  #: what 1.0 is in 16 bits
Modality = Literal["vision", "speech", "text"]
Detail = Literal["auto", "low", "high"]


@dataclass(frozen=True, slots=True)
class ReadPage:
    """Read the text of one page. `image` is upright RGB."""

    image: Image
    format: Literal["markdown", "text"] = "markdown"
    detail: Detail = "auto"
    prompt: str | None = None
    max_tokens: int | None = None
    temperature: float = 0.0


@dataclass(frozen=True, slots=True)
class AskImages:
    """Answer one question over one or several images (upright RGB)."""

    images: tuple[Image, ...]
    question: str
    system: str | None = None
    response_schema: dict[str, Any] | None = None
    detail: Detail = "auto"
    max_tokens: int | None = None
    temperature: float = 0.0


@dataclass(frozen=True, slots=True)
class TranscribeClip:
    """Write down, or translate, one clip of at most 30 s."""

    samples: Sound
    task: Literal["transcribe", "translate"] = "transcribe"
    language: str | None = None
    target_language: str = "en"
    prompt: str | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a conversation: words, images (upright RGB) and clips (as in `TranscribeClip`), in order."""

    role: Literal["system", "user", "assistant"]
    content: tuple[str | Image | Sound, ...]


@dataclass(frozen=True, slots=True)
class Chat:
    """Answer the last turn of a conversation."""

    turns: tuple[Turn, ...]
    response_schema: dict[str, Any] | None = None
    detail: Detail = "auto"
    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


def as_floats(sound: Sound) -> NDArray[np.float32]:
    """Give sound in float32, in [-1, 1]."""
    if sound.dtype == np.int16:
        return np.divide(sound, FULL_SCALE, dtype=np.float32)
    return np.ascontiguousarray(sound, np.float32)


Task = ReadPage | AskImages | TranscribeClip | Chat


@dataclass(frozen=True, slots=True)
class Line:
    """One printed line: its text, its box (left, top, right, bottom, in pixels of the page), confidence 0 to 1."""

    text: str
    box: tuple[float, float, float, float]
    confidence: float


@dataclass(frozen=True, slots=True)
class Span:
    """Words between two times, in seconds from the start of the clip."""

    start: float
    end: float
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine gives back for one task; fields a task does not use stay empty."""

    text: str
    finish_reason: Literal["stop", "length"] = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    lines: tuple[Line, ...] = ()
    spans: tuple[Span, ...] = ()
    language: str | None = None
    data: Any = None


def _ignore(_: str) -> None:
    """Drop a delta nobody listens to."""


def _nothing() -> None:
    """Restart a text nobody listens to."""


@dataclass(frozen=True, slots=True)
class Call:
    """How one task is to be run: its name in logs, its urgency, where deltas go, and the flag that stops it."""

    request_id: str = ""
    priority: int = 0  #: lower runs first, as vLLM's scheduler has it
    on_delta: Callable[[str], None] = _ignore  #: takes each new piece of text, from any thread, and never blocks
    on_restart: Callable[[], None] = _nothing  #: says that the text begins anew, as when a looping page is read again
    #: Set by the worker when the job is cancelled or past its deadline; the engine then raises `Cancelled`.
    cancelled: threading.Event = field(default_factory=threading.Event)


#: What one question may be asked over: the model was trained on up to 64 pictures at once (model card).
MOST_IMAGES, MOST_CLIPS = 64, 4


class Engine(Protocol):
    """One loaded model. `run` is called from many threads at once, at most `slots` + `ahead` of them."""

    name: str
    model: str
    modalities: frozenset[Modality]
    slots: int
    #: Tasks that it makes ready while all slots are taken, so that none stays empty. Where there are any, the worker
    #: has time for parts alone, and side workers finish the jobs.
    ahead: int
    #: Larger pictures come scaled down to so many pixels, since those of all tasks are held; None where all are wanted.
    most_pixels: int | None

    def start(self, stage: Callable[[str], None]) -> None:
        """Load the model and answer a real probe; `stage` hears "loading", "probing", … Raises when it cannot."""

    def run(self, task: Task, call: Call) -> Answer:
        """Answer `task`. Raises `CannotAnswer`, `InputError`, `EngineError`, `EngineDead` or `Cancelled`."""

    def check(self) -> None:
        """Raise `EngineDead` when the engine can answer nothing more."""

    def stop(self) -> None:
        """Free everything the engine holds."""
