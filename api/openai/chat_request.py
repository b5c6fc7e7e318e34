"""What `POST /v1/chat/completions` takes, and the job it asks for."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from api import body
from api.body import Upload
from api.openai.errors import checked, refuse, without
from api.problems import invalid
from api.schemas import Metadata, http_url
from phi4.errors import NotFound

#: Fields that clients send and that change nothing here.
IGNORED = frozenset(
    {"user", "store", "parallel_tool_calls", "service_tier", "safety_identifier"}
    | {"prompt_cache_key", "prompt_cache_retention", "prompt_cache_options"}
)
#: Fields that nothing here can do, and the values with which they ask for nothing.
UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "moderation": (),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "web_search_options": (),
}
#: Notes for caches, on a piece of a message.
PART_NOTES = ("cache_control", "prompt_cache_breakpoint")
_MAX_URL = 4_096


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageUrl(_Fields):
    """Where a picture, or a PDF, is."""

    url: str = Field(min_length=1, description="A data: URL of base64, or http(s), fetched by the service")
    detail: Literal["auto", "low", "high", "original"] | None = None


class InputAudio(_Fields):
    """A recording."""

    data: str = Field(min_length=1, description="Base64")
    format: Literal["wav", "mp3"]


class InputFile(_Fields):
    """A document: its bytes, or a file of `POST /v1/files`."""

    file_data: str | None = Field(None, min_length=1, description="A data: URL of base64")
    file_id: str | None = Field(None, min_length=1, max_length=100)
    filename: str | None = Field(None, max_length=255)

    @model_validator(mode="after")
    def _is_one(self) -> InputFile:
        if (self.file_data is None) == (self.file_id is None):
            raise ValueError("give either `file_data` or `file_id`")
        return self


class ContentPart(_Fields):
    """A piece of a message; the field named as its type holds it."""

    type: Literal["text", "image_url", "input_audio", "file"]
    text: str | None = None
    image_url: ImageUrl | None = None
    input_audio: InputAudio | None = None
    file: InputFile | None = None

    @field_validator("image_url", mode="before", json_schema_input_type=ImageUrl | str | None)
    @classmethod
    def _spelled_out(cls, value: object) -> object:
        return {"url": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _holds_what_it_says(self) -> ContentPart:
        if getattr(self, self.type) is None:
            raise ValueError(f"a part of type {self.type} needs `{self.type}`")
        return self


class Message(_Fields):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: list[ContentPart] = Field(min_length=1, max_length=1_000, description="Or a string")

    @field_validator("content", mode="before", json_schema_input_type=list[ContentPart] | str)
    @classmethod
    def _listed(cls, value: object) -> object:
        return [{"type": "text", "text": value}] if isinstance(value, str) else value


class JsonSchema(_Fields):
    """A JSON Schema with a name."""

    name: str = Field(max_length=64)
    schema_: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(_Fields):
    """What the answer is written as."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("`json_schema` belongs to type json_schema, and to no other")
        return self


class StreamOptions(_Fields):
    """What a stream tells beside the text."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = Field(None, description="Ignored: nothing is padded")


class ChatRequest(_Fields):
    """A chat completion as a client asks for it."""

    model: str
    messages: list[Message] = Field(min_length=1, max_length=1_000)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    max_tokens: int | None = Field(None, ge=1, le=131_072)
    max_completion_tokens: int | None = Field(None, ge=1, le=131_072)
    temperature: float | None = Field(None, ge=0.0, le=2.0)
    top_p: float | None = Field(None, gt=0.0, le=1.0)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: list[Annotated[str, Field(min_length=1, max_length=1_000)]] | None = Field(
        None, max_length=4, description="Or a string"
    )
    metadata: Metadata | None = None

    @field_validator("stop", mode="before", json_schema_input_type=list[str] | str | None)
    @classmethod
    def _listed(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    def params(self) -> dict[str, Any]:
        """The params of the job, but for its messages."""
        given = {
            "response_schema": self._response_schema(),
            "detail": self._detail(),
            "max_tokens": self.max_completion_tokens or self.max_tokens,
            "temperature": 1.0 if self.temperature is None else self.temperature,  # OpenAI's default
            "top_p": self.top_p,
            "seed": self.seed,
            "stop": self.stop,
        }
        return {name: value for name, value in given.items() if value is not None}

    def _response_schema(self) -> dict[str, Any] | None:
        wanted = self.response_format
        if wanted is None or wanted.type == "text":
            return None
        return wanted.json_schema.schema_ if wanted.json_schema else {"type": "object"}

    def _detail(self) -> str:
        """One for all pictures: the finest that one asks for, and low only when none asks for more."""
        details = {p.image_url.detail or "auto" for m in self.messages for p in m.content if p.image_url}
        if details & {"high", "original"}:
            return "high"
        return "low" if details == {"low"} else "auto"


def read(fields: dict[str, Any]) -> ChatRequest:
    """Check a request. Raises `InvalidRequest` with OpenAI's codes."""
    fields = without(fields, IGNORED, UNSUPPORTED)
    if isinstance(messages := fields.get("messages"), list):
        fields["messages"] = [_tidy(m) if isinstance(m, dict) else m for m in messages]
    chat = checked(ChatRequest, fields)
    if chat.stream_options and not chat.stream:
        raise refuse("stream_options", "is only allowed when `stream` is true", "invalid_value")
    if None not in (chat.max_tokens, chat.max_completion_tokens) and chat.max_tokens != chat.max_completion_tokens:
        raise refuse("max_tokens", "differs from `max_completion_tokens`; give one of them", "invalid_value")
    if chat.response_format and chat.response_format.json_schema:
        body.check_schema(chat.response_format.json_schema.schema_, "response_format.json_schema.schema")
    return chat


def _tidy(message: dict[str, Any]) -> dict[str, Any]:
    """Leave out what clients send back of earlier answers though it holds nothing, names, and notes for caches."""
    nothing: tuple[Any, ...] = (None, [], {}, "")
    known = Message.model_fields
    kept = {k: v for k, v in message.items() if k in known or (k != "name" and v not in nothing)}
    if isinstance(content := kept.get("content"), list):
        kept["content"] = [without(p, PART_NOTES, {}) if isinstance(p, dict) else p for p in content]
    return kept


def job_of(
    chat: ChatRequest, *, max_inputs: int, stored: Callable[[str], Upload]
) -> tuple[dict[str, Any], list[Upload]]:
    """Turn a request into the params and inputs of a job of type `chat`; `stored` opens an uploaded file by its id.

    Raises `InvalidRequest`.
    """
    if sum(part.type != "text" for message in chat.messages for part in message.content) > max_inputs:
        raise refuse("messages", f"hold more than {max_inputs} pictures and recordings", "array_above_max_length")
    messages: list[dict[str, Any]] = []
    uploads: list[Upload] = []
    for m, message in enumerate(chat.messages):
        content: list[dict[str, Any]] = []
        for p, part in enumerate(message.content):
            if part.type == "text":
                content.append({"type": "text", "text": part.text})
                continue
            if message.role != "user":
                raise invalid(f"messages.{m}.content.{p}", "only a user's message holds pictures, files or sound")
            content.append({"type": "audio" if part.input_audio else "image", "input": len(uploads)})
            uploads.append(_upload(part, f"messages.{m}.content.{p}.{part.type}", stored))
        messages.append({"role": "system" if message.role == "developer" else message.role, "content": content})
    return chat.params() | {"messages": messages}, uploads


def _upload(part: ContentPart, field: str, stored: Callable[[str], Upload]) -> Upload:
    if part.input_audio:
        return decoded(part.input_audio.data, f"{field}.data")
    if part.file and part.file.file_id:
        try:
            return stored(part.file.file_id)
        except NotFound:
            raise refuse(f"{field}.file_id", "names no file of yours", "invalid_value") from None
    if part.file:
        return decoded(part.file.file_data or "", f"{field}.file_data", part.file.filename or "")
    url = part.image_url.url if part.image_url else ""
    if url.startswith("data:"):
        return decoded(url, f"{field}.url")
    try:
        if len(url) <= _MAX_URL:
            return Upload("", url=http_url(url))
    except ValueError:
        pass
    raise refuse(f"{field}.url", "must be a data: URL of base64, or an http or https URL", "invalid_image_url")


def decoded(data: str, field: str, filename: str = "") -> Upload:
    """Decode base64, or a data: URL of it, that came in a field. Raises `InvalidRequest`."""
    content = body.decoded(data, field)
    if not content:
        raise invalid(field, "is empty")
    return Upload(filename, io.BytesIO(content))
