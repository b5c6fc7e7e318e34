"""`POST /v1/ocr` as Mistral's clients use it: a document in, its pages as Markdown out, errors in Mistral's shape."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any, Literal

from flask import Blueprint, Response, json, jsonify
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from api import answers, body
from api.auth import caller
from api.body import Upload
from api.problems import Failure, field_errors, invalid, invalid_fields
from api.schemas import http_url
from api.services import Services
from phi4.errors import NotFound, UnknownModel
from phi4.job import Job
from phi4.params import LONGEST_PAGES

PATHS = ("/v1/ocr",)
#: The name that clients of this route have built in.
MISTRAL_OCR = "mistral-ocr-latest"
#: Fields that change nothing here: no pictures are cut out of pages, and `blocks` is null, though Mistral's own client
#: asks for them unless told otherwise.
IGNORED = frozenset({"id", "include_image_base64", "image_limit", "image_min_size", "include_blocks"})
#: Fields that nothing here can do, and the values with which they ask for nothing.
UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "bbox_annotation_format": (),
    "document_annotation_format": (),
    "document_annotation_prompt": (),
    "table_format": (),
    "extract_header": (False,),
    "extract_footer": (False,),
    "confidence_scores_granularity": (),
}
_PAGES = re.compile(r"\d{1,6}(-\d{1,6})?(,\d{1,6}(-\d{1,6})?)*")
_MAX_URL = 4_096
#: A picture does not say how large it was on paper; one pixel is then a point.
_DPI_OF_PICTURES = 72
_UNKNOWN_MODEL = "1500"


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DocumentUrl(_Fields):
    """Where a picture is, for clients that say it in an object."""

    url: str
    detail: str | None = Field(None, description="Ignored")


class Document(_Fields):
    """The document; the field named as its type holds it, and `file_id` a file of `POST /v1/files`."""

    type: Literal["document_url", "image_url", "file"]
    document_url: str | None = Field(None, description="A data: URL of base64, or http(s), fetched by the service")
    document_name: str | None = Field(None, max_length=255)
    image_url: str | DocumentUrl | None = Field(None, description="As document_url")
    file_id: str | None = Field(None, max_length=100)

    @model_validator(mode="after")
    def _holds_what_it_says(self) -> Document:
        needed = "file_id" if self.type == "file" else self.type
        if not (self.file_id if self.type == "file" else self.url):
            raise ValueError(f"a document of type {self.type} needs `{needed}`")
        return self

    @property
    def url(self) -> str:
        """Where it is."""
        given = self.document_url if self.type == "document_url" else self.image_url
        return (given.url if isinstance(given, DocumentUrl) else given) or ""


class OcrRequest(_Fields):
    """A document to be read, as a client asks for it."""

    model: str | None = None
    document: Document
    pages: str | None = Field(None, max_length=LONGEST_PAGES, description='Pages from 0: a list, or "0-5" or "0,2-4"')

    @field_validator("pages", mode="before", json_schema_input_type=list[int] | str | None)
    @classmethod
    def _spelled_out(cls, value: object) -> object:
        if isinstance(value, list):
            if not all(type(n) is int and n >= 0 for n in value):
                raise ValueError("must be page numbers from 0")
            return ",".join(map(str, value)) or None
        return value.replace(" ", "") if isinstance(value, str) else value

    @field_validator("pages")
    @classmethod
    def _upwards(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not _PAGES.fullmatch(value):
            raise ValueError('must be page numbers from 0, or look like "0-5" or "0,2-4"')
        if any(int(first) > int(last) for first, _, last in (p.partition("-") for p in value.split(",")) if last):
            raise ValueError("a range goes upwards")
        return value

    def params(self) -> dict[str, Any]:
        """The params of the job, whose pages count from 1."""
        if self.pages is None:
            return {}
        return {"pages": re.sub(r"\d+", lambda number: str(int(number[0]) + 1), self.pages)}


def blueprint(services: Services) -> Blueprint:
    """Make the route over the services of this process."""
    routes = Blueprint("mistral", __name__, url_prefix="/v1")

    @routes.post("/ocr")
    def ocr() -> Response:
        """Read a document."""
        asked = _checked(answers.json_body())
        answers.check_model(services, asked.model or MISTRAL_OCR, MISTRAL_OCR)
        upload = _upload(services, asked.document)
        with answers.place(services.room_to_wait):
            job = answers.wait(services, answers.submit(services, "ocr", asked.params(), [upload]))
        return jsonify(_shown(services.views.result(job), job, services.settings.served_name))

    return routes


def shape(failure: Failure) -> Response:
    """Write a failure as Mistral does: what is wrong field by field with 422, all else as an object."""
    failure = failure.cause()
    if wrong := failure.details.get("errors"):
        details = [
            {"type": "value_error", "loc": ["body", *_location(one["field"])], "msg": one["message"]} for one in wrong
        ]
        return _json({"detail": details}, 422)
    # 422 belongs to the form above.
    status = {415: 400, 422: 400}.get(failure.status, failure.status)
    kind = "invalid_request_error" if status < 500 else "internal_server_error"
    told = {"object": "error", "message": failure.message, "type": kind, "param": None, "code": failure.code}
    if failure.code == UnknownModel.code:
        return _json(told | {"type": "invalid_model", "code": _UNKNOWN_MODEL}, 400)
    return _json(told | ({"type": "rate_limited"} if status == 429 else {}), status)


def _json(value: dict[str, Any], status: int) -> Response:
    return Response(json.dumps(value, ensure_ascii=False), status, mimetype="application/json")


def _location(field: str) -> list[str | int]:
    return [int(p) if p.isdigit() else p for p in field.removeprefix("params.").split(".")]


def _checked(fields: dict[str, Any]) -> OcrRequest:
    asked = {name: value for name, value in fields.items() if name not in IGNORED}
    for name, nothing in UNSUPPORTED.items():
        if (value := asked.pop(name, None)) is not None and value not in nothing:
            raise invalid(name, "is not supported by this service; leave it out")
    try:
        return OcrRequest.model_validate(asked)
    except ValidationError as error:
        raise invalid_fields(field_errors(error)) from None


def _upload(services: Services, document: Document) -> Upload:
    field, url, name = f"document.{document.type}", document.url, document.document_name or ""
    if document.type == "file":
        try:
            return services.stored(document.file_id or "", caller().owner)
        except NotFound:
            raise invalid("document.file_id", "names no file of yours") from None
    if url.startswith("data:"):
        content = body.decoded(url, field)
        if not content:
            raise invalid(field, "is empty")
        return Upload(name, io.BytesIO(content))
    try:
        if len(url) <= _MAX_URL:
            return Upload(name, url=http_url(url))
    except ValueError:
        pass
    raise invalid(field, "must be a data: URL of base64, or an http or https URL")


def _shown(result: dict[str, Any], job: Job, model: str) -> dict[str, Any]:
    pages = [_page(page) for page in result["pages"]]
    return {
        "pages": pages,
        "model": model,
        "document_annotation": None,
        "usage_info": {
            "pages_processed": sum("error" not in page for page in pages),
            "doc_size_bytes": sum(one.bytes for one in job.inputs),
        },
    }


def _page(page: dict[str, Any]) -> dict[str, Any]:
    """A page in Mistral's shape; one that could not be read says so in `error`, a member that Mistral does not have."""
    size = page.get("dimensions")
    shown = {
        "index": page["page"] - 1,
        "markdown": page["markdown"],
        "images": [],
        "dimensions": size | {"dpi": size["dpi"] or _DPI_OF_PICTURES} if size else None,
        "blocks": None,
    }
    return shown | ({"error": page["error"]} if "error" in page else {})
