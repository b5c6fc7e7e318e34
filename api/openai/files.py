"""The files routes, as OpenAI has them: bytes that are uploaded once, for batches and for jobs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from flask import Response, jsonify, request
from pydantic import BaseModel, ConfigDict, Field

from api import body
from api.auth import caller, listed_owner
from api.openai.errors import checked, refuse
from api.services import Services
from phi4.errors import BlobMissing, EmptyInput, ServiceError, UnsupportedMedia
from phi4.job import new_id
from phi4.store import StoredFile
from phi4.store.keys import MAX_EXPIRES_S

_CHUNK = 1 << 20


class FileFields(BaseModel):
    """The fields beside the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    purpose: Literal["batch", "user_data", "vision"]
    expires_after_anchor: Literal["created_at"] = Field("created_at", alias="expires_after[anchor]")
    expires_after_seconds: int = Field(MAX_EXPIRES_S, alias="expires_after[seconds]", ge=3_600, le=MAX_EXPIRES_S)


def upload(services: Services) -> Response:
    """Store one file."""
    if request.mimetype != "multipart/form-data":
        raise UnsupportedMedia(f"Send multipart/form-data, not {request.mimetype or 'an untyped body'}.")
    fields = checked(FileFields, request.form.to_dict())
    files = request.files.getlist("file")
    if len(files) != 1:
        raise refuse(
            "file", "send one file under this name", "invalid_value" if files else "missing_required_parameter"
        )
    upload = body.from_file(files[0])
    if upload.stream is None:
        raise EmptyInput
    services.blobs.check_room()
    file = store(
        services,
        upload.stream,
        owner=caller().owner,
        filename=upload.filename,
        purpose=fields.purpose,
        kept_s=fields.expires_after_seconds,
    )
    return jsonify(view(file))


def store(
    services: Services, stream: Any, *, owner: str, filename: str, purpose: str, kept_s: int, file_id: str = ""
) -> StoredFile:
    """Store a stream as a file of an owner's, in place of one that has this id."""
    now = services.store.now_ms()
    file_id = file_id or new_id("file", now)
    length, sha256 = services.blobs.put_stream(f"{file_id}/content", stream)
    file = StoredFile(file_id, owner, filename, purpose, length, sha256, now, now + kept_s * 1000)
    try:
        services.store.files.add(file)
    except ServiceError:
        services.blobs.delete_folder(file_id)
        raise
    return file


def listed(services: Services) -> Response:
    """List files, newest first unless `order` is asc."""
    files = services.store.files.newest(listed_owner())
    if purpose := request.args.get("purpose"):
        files = [file for file in files if file.purpose == purpose]
    return jsonify(page([view(file) for file in files]))


def page(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Cut a page out of a list, by `limit`, `after` and `order`."""
    order = request.args.get("order", "desc")
    if order not in ("asc", "desc"):
        raise refuse("order", "must be asc or desc", "invalid_value")
    found = found[::-1] if order == "asc" else found
    limit = request.args.get("limit", "100")
    if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:9]) <= 10_000:
        raise refuse("limit", "must be a number from 1 to 10000", "invalid_value")
    ids = [one["id"] for one in found]
    if after := request.args.get("after"):
        found = found[ids.index(after) + 1 :] if after in ids else []
    shown = found[: int(limit)]
    first, last = (shown[0]["id"], shown[-1]["id"]) if shown else (None, None)
    return {"object": "list", "data": shown, "has_more": len(shown) < len(found), "first_id": first, "last_id": last}


def shown(services: Services, file_id: str) -> Response:
    """Show one file."""
    return jsonify(view(services.store.files.get(file_id, caller().sees)))


def content(services: Services, file_id: str) -> Response:
    """Give a file's bytes. Raises `BlobMissing`."""
    file = services.store.files.get(file_id, caller().sees)
    if not services.blobs.exists(file.blob):
        raise BlobMissing

    def pieces() -> Iterator[bytes]:
        with services.blobs.as_file(file.blob) as path, path.open("rb") as stored:
            while piece := stored.read(_CHUNK):
                yield piece

    return Response(pieces(), mimetype="application/octet-stream", headers={"Content-Length": str(file.bytes)})


def erased(services: Services, file_id: str) -> Response:
    """Erase a file; the last batch that still reads it erases the bytes."""
    file = services.store.files.get(file_id, caller().sees)
    services.store.files.delete(file)
    if not services.store.batches.reads(file.id):
        services.blobs.delete_folder(file.id)
    return jsonify({"id": file.id, "object": "file", "deleted": True})


def view(file: StoredFile) -> dict[str, Any]:
    """Show a file as OpenAI does."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_ms // 1000,
        "expires_at": file.expires_ms // 1000,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
    }
