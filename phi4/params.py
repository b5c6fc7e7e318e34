"""What a caller may ask of each type of job: the params, their defaults and their bounds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from phi4.errors import PageOutOfRange

JobType = Literal["ocr", "vqa", "asr", "chat"]
Modality = Literal["vision", "speech", "text"]
Detail = Literal["auto", "low", "high"]

_PAGES = re.compile(r"^\s*\d{1,6}(\s*-\s*\d{1,6})?(\s*,\s*\d{1,6}(\s*-\s*\d{1,6})?)*\s*$")


#: Characters: some two thousand pages, each by its number.
LONGEST_PAGES = 10_000


class _Params(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _PagedParams(_Params):
    pages: str | None = Field(
        None, max_length=LONGEST_PAGES, description='Pages of a document, 1-based, e.g. "1-3,7"; all by default'
    )
    detail: Detail = Field("auto", description="How finely pages are looked at")

    @field_validator("pages")
    @classmethod
    def _well_formed(cls, value: str | None) -> str | None:
        if value is not None and not _PAGES.match(value):
            raise ValueError('must look like "1-3,7"')
        if value is not None and any(first > last or first < 1 for first, last in _ranges(value)):
            raise ValueError("pages count from 1, and a range goes upwards")
        return value


class OcrParams(_PagedParams):
    """Params of a job of type `ocr`."""

    format: Literal["markdown", "text"] = Field("markdown", description="What each page is written as")
    prompt: str | None = Field(None, min_length=1, max_length=20_000, description="Replaces the built-in instruction")
    max_tokens: int | None = Field(None, ge=1, le=131_072, description="Most tokens for one page")
    temperature: float = Field(0.0, ge=0.0, le=2.0)


class VqaParams(_PagedParams):
    """Params of a job of type `vqa`."""

    question: str = Field(min_length=1, max_length=20_000)
    system: str | None = Field(None, min_length=1, max_length=20_000)
    response_schema: dict[str, Any] | None = Field(None, description="A JSON Schema that the answer must fit")
    max_tokens: int | None = Field(None, ge=1, le=131_072)
    temperature: float = Field(0.0, ge=0.0, le=2.0)

    @field_validator("question")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must hold a question")
        return value


class AsrParams(_Params):
    """Params of a job of type `asr`."""

    task: Literal["transcribe", "translate"] = "transcribe"
    language: str | None = Field(None, pattern=r"^[a-z]{2}$", description="ISO 639-1; found out by default")
    target_language: str = Field("en", pattern=r"^[a-z]{2}$", description="Used by task `translate`")
    timestamps: Literal["segment", "none"] = Field("segment", description="Word times do not exist in this model")
    prompt: str | None = Field(None, min_length=1, max_length=20_000)
    max_tokens: int | None = Field(None, ge=1, le=131_072, description="Most tokens for one clip")


class ChatPart(_Params):
    """A piece of a message: words, or one of the job's inputs."""

    type: Literal["text", "image", "audio"]
    text: str | None = Field(None, description="For type `text`")
    input: int | None = Field(None, ge=0, description="For the others: which of the job's inputs, 0-based")

    @model_validator(mode="after")
    def _holds_what_it_says(self) -> ChatPart:
        wanted = "text" if self.type == "text" else "input"
        other = "input" if self.type == "text" else "text"
        if getattr(self, wanted) is None or getattr(self, other) is not None:
            raise ValueError(f"a part of type {self.type} has `{wanted}`, and no `{other}`")
        return self


class ChatMessage(_Params):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: list[ChatPart] = Field(min_length=1, max_length=1_000, description="A string is one part of type `text`")

    @field_validator("content", mode="before", json_schema_input_type=list[ChatPart] | str)
    @classmethod
    def _listed(cls, value: object) -> object:
        return [{"type": "text", "text": value}] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _media_are_the_users(self) -> ChatMessage:
        if self.role != "user" and any(part.type != "text" for part in self.content):
            raise ValueError("only a user's message holds pictures or sound")
        return self


class ChatParams(_Params):
    """Params of a job of type `chat`."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=1_000)
    response_schema: dict[str, Any] | None = Field(None, description="A JSON Schema that the answer must fit")
    detail: Detail = Field("auto", description="How finely pictures are looked at")
    max_tokens: int | None = Field(None, ge=1, le=131_072)
    temperature: float = Field(0.0, ge=0.0, le=2.0)
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: list[Annotated[str, Field(min_length=1, max_length=1_000)]] = Field(default_factory=list, max_length=4)

    @field_validator("messages")
    @classmethod
    def _not_a_library(cls, value: list[ChatMessage]) -> list[ChatMessage]:
        if sum(len(part.text or "") for message in value for part in message.content) > MOST_CHAT_CHARACTERS:
            raise ValueError(f"hold more than {MOST_CHAT_CHARACTERS} characters together")
        return value


#: Far more than the model's context holds; the text of a conversation is kept in the job's record.
MOST_CHAT_CHARACTERS = 1_000_000

PARAMS: dict[JobType, type[OcrParams | VqaParams | AsrParams | ChatParams]] = {
    "ocr": OcrParams,
    "vqa": VqaParams,
    "asr": AsrParams,
    "chat": ChatParams,
}
_MODALITY: dict[JobType, Modality] = {"ocr": "vision", "vqa": "vision", "asr": "speech"}
#: What one part of a type is called.
UNIT: dict[JobType, str] = {"ocr": "page", "vqa": "question", "asr": "clip", "chat": "turn"}


def modality(job_type: JobType, params: Mapping[str, Any]) -> Modality:
    """Tell which adapter of the model, and so which queue, a job needs; `params` as they were checked."""
    if job_type != "chat":
        return _MODALITY[job_type]
    kinds = {kind for _, kind in chat_media(params)}
    return "vision" if "image" in kinds else "speech" if kinds else "text"


def chat_media(params: Mapping[str, Any]) -> list[tuple[int, str]]:
    """List the pictures and recordings of a conversation in order: which input, and `image` or `audio`."""
    parts = (part for message in params["messages"] for part in message["content"])
    return [(part["input"], part["type"]) for part in parts if part["type"] != "text"]


def choose_pages(pages: str | None, total: int) -> list[int]:
    """List the chosen pages (1-based, each once, in the order asked). Raises `PageOutOfRange`."""
    if pages is None:
        return list(range(1, total + 1))
    chosen: dict[int, None] = {}
    for first, last in _ranges(pages):
        if last > total:
            raise PageOutOfRange(f'`params.pages` is "{pages}", but the document has {total} page{"s" * (total != 1)}.')
        chosen.update(dict.fromkeys(range(first, last + 1)))
    return list(chosen)


def _ranges(pages: str) -> list[tuple[int, int]]:
    bounds = ([int(n) for n in piece.split("-")] for piece in pages.split(","))
    return [(b[0], b[-1]) for b in bounds]
