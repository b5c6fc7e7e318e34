"""What the client gives back: jobs and their results as frozen values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the API tells it; `raw` holds everything, also what newer services add."""

    id: str
    type: str
    status: str
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    progress: Mapping[str, Any]
    raw: Mapping[str, Any]

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Job:
        """Read the API's JSON."""
        told = (fields["id"], fields["type"], fields["status"], fields.get("result"), fields.get("error"))
        return cls(*told, progress=fields.get("progress", {}), raw=fields)


@dataclass(frozen=True, slots=True)
class Page:
    """One page; `error` says why it has no text."""

    page: int
    text: str
    markdown: str
    error: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class OcrResult:
    """The text of a document, as a whole and by page."""

    text: str
    pages: tuple[Page, ...]

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> OcrResult:
        """Read a job's `result`."""
        pages = (Page(p["page"], p["text"], p["markdown"], p.get("error")) for p in result["pages"])
        return cls(result["text"], tuple(pages))


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer; `data` is the parsed JSON when a schema was given."""

    text: str
    data: Any
    finish_reason: str

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> Answer:
        """Read a job's `result`."""
        return cls(result["answer"], result.get("data"), result["finish_reason"])


@dataclass(frozen=True, slots=True)
class Segment:
    """Words between two times, in seconds."""

    start: float
    end: float
    text: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said, as a whole and by segment."""

    text: str
    language: str | None
    duration: float
    segments: tuple[Segment, ...]

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> Transcript:
        """Read a job's `result`."""
        segments = (Segment(s["start"], s["end"], s["text"]) for s in result["segments"])
        return cls(result["text"], result.get("language"), result["duration"], tuple(segments))


Result = OcrResult | Answer | Transcript
#: What reads a job's `result`, by its type.
RESULTS: Mapping[str, Callable[[Mapping[str, Any]], Result]] = {
    "ocr": OcrResult.of,
    "vqa": Answer.of,
    "asr": Transcript.of,
}
