"""What a caller may ask of each type of job: the params, their defaults and their bounds."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from phi4.errors import PageOutOfRange

JobType = Literal["ocr", "vqa", "asr"]
Detail = Literal["auto", "low", "high"]

_PAGES = re.compile(r"^\s*\d{1,6}(\s*-\s*\d{1,6})?(\s*,\s*\d{1,6}(\s*-\s*\d{1,6})?)*\s*$")


class _Params(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _PagedParams(_Params):
    pages: str | None = Field(
        None, max_length=1_000, description='Pages of a document, 1-based, e.g. "1-3,7"; all by default'
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


PARAMS: dict[JobType, type[OcrParams | VqaParams | AsrParams]] = {"ocr": OcrParams, "vqa": VqaParams, "asr": AsrParams}
#: Which adapter of the model, and so which queue, a type needs.
MODALITY: dict[JobType, Literal["vision", "speech"]] = {"ocr": "vision", "vqa": "vision", "asr": "speech"}
#: What one part of a type is called.
UNIT: dict[JobType, str] = {"ocr": "page", "vqa": "question", "asr": "clip"}


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
