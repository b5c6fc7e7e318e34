"""What `POST /v1/jobs` takes, as pydantic models; the OpenAPI document is made from them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from phi4.job import Priority, WebhookEvent
from phi4.params import JobType
from phi4.store.keys import MAX_EXPIRES_S

_BLANK = re.compile(r"[\s\x00-\x1f\x7f]")
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]


def http_url(value: str) -> str:
    """Give back an http or https URL with a host. Raises `ValueError` for anything else."""
    if not _has_host(value) or _BLANK.search(value):
        raise ValueError("must be an http or https URL with a host")
    if "@" in urlsplit(value).netloc:
        raise ValueError("must not hold a user or a password")
    return value


def _has_host(value: str) -> bool:
    try:
        pieces = urlsplit(value)
        return pieces.scheme in ("http", "https") and bool(pieces.hostname) and pieces.port != 0
    except ValueError:  # a port that is no number, or half an IPv6 address
        return False


_Url = Annotated[str, Field(max_length=4_096), AfterValidator(http_url)]


def _when_ended() -> list[WebhookEvent]:
    return ["job.completed", "job.failed", "job.cancelled", "job.expired"]


class JobInput(BaseModel):
    """One input: exactly one of `url`, `data` and `file_id`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: _Url | None = Field(None, description="Fetched by the service; public addresses only")
    data: str | None = Field(None, description="Base64, or a data: URL")
    file_id: str | None = Field(None, min_length=1, max_length=100, description="A file of `POST /v1/files`")
    filename: str = Field("", max_length=255, description="Shown back, never used as a path")

    @model_validator(mode="after")
    def _one_source(self) -> JobInput:
        if [self.url, self.data, self.file_id].count(None) != 2:
            raise ValueError("give exactly one of url, data and file_id")
        return self


class JobRequest(BaseModel):
    """A job as a caller asks for it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: JobType
    input: list[JobInput] = Field(default_factory=list, description="One object or a list")
    params: dict[str, Any] = Field(default_factory=dict, description="Depends on the type")
    webhook_url: _Url | None = None
    webhook_events: list[WebhookEvent] = Field(default_factory=_when_ended, max_length=10)
    priority: Priority = "normal"
    metadata: Metadata = Field(default_factory=dict)
    cancel_after: int | None = Field(None, ge=1, le=MAX_EXPIRES_S, description="Seconds until the job is cancelled")
    expires_in: int = Field(86_400, ge=60, le=MAX_EXPIRES_S, description="Seconds that input and result are kept")
    input_retention: Literal["until_expiry", "until_done"] = "until_expiry"
    cache: bool = Field(True, description="Whether the result of an earlier, equal job will do")

    @field_validator("input", mode="before", json_schema_input_type=JobInput | list[JobInput])
    @classmethod
    def _listed(cls, value: object) -> object:
        if not isinstance(value, dict | list):
            raise ValueError('give an object, such as {"url": "https://…"}, or a list of them')
        return [value] if isinstance(value, dict) else value

    @field_validator("webhook_events", mode="before", json_schema_input_type=list[WebhookEvent] | str)
    @classmethod
    def _separated(cls, value: object) -> object:
        return [v.strip() for v in value.split(",")] if isinstance(value, str) else value
