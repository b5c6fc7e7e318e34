"""The batches routes, as OpenAI has them; the work itself is `batch_runner`'s."""

from __future__ import annotations

import json
from typing import Any, Literal

from flask import Response, jsonify
from pydantic import BaseModel, ConfigDict, Field

from api import answers
from api.auth import caller, listed_owner
from api.openai import files
from api.openai.errors import checked, refuse
from api.schemas import Metadata
from api.services import Services
from phi4.errors import NotFound
from phi4.job import new_id
from phi4.store import Batch
from phi4.store.keys import MAX_EXPIRES_S

_WINDOW_S = 86_400


class OutputExpiry(BaseModel):
    """How long the output and error files are kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    anchor: Literal["created_at"] = "created_at"
    seconds: int = Field(ge=3_600, le=MAX_EXPIRES_S)


class BatchRequest(BaseModel):
    """A batch as a client asks for it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input_file_id: str = Field(min_length=1, max_length=100)
    endpoint: Literal["/v1/chat/completions", "/v1/audio/transcriptions"]
    completion_window: Literal["24h"]
    metadata: Metadata | None = None
    output_expires_after: OutputExpiry | None = None


def create(services: Services) -> Response:
    """Note a batch; its lines are looked at by the runner."""
    wanted = checked(BatchRequest, answers.json_body())
    who = caller()
    try:
        file = services.store.files.get(wanted.input_file_id, who.owner)
    except NotFound:
        raise refuse("input_file_id", "names no file of yours", "invalid_value") from None
    if file.purpose != "batch":
        raise refuse("input_file_id", f"was uploaded for {file.purpose}, not for batch", "invalid_value")
    now = services.store.now_ms()
    kept = wanted.output_expires_after
    batch = Batch(
        id=new_id("batch", now),
        owner=who.owner,
        api_key=who.key.id if who.key else "",
        endpoint=wanted.endpoint,
        input_file=file.id,
        metadata=json.dumps(dict(wanted.metadata or {})),
        created_ms=now,
        ends_ms=now + _WINDOW_S * 1000,
        files_kept_s=kept.seconds if kept else MAX_EXPIRES_S,
    )
    services.store.batches.add(batch)
    return jsonify(view(batch))


def shown(services: Services, batch_id: str) -> Response:
    """Show one batch."""
    return jsonify(view(services.store.batches.get(batch_id, caller().sees)))


def listed(services: Services) -> Response:
    """List batches, newest first."""
    return jsonify(files.page([view(batch) for batch in services.store.batches.newest(listed_owner())]))


def cancelled(services: Services, batch_id: str) -> Response:
    """Ask for the end of a batch; what has been answered is kept. One that is over stays as it is."""
    batch = services.store.batches.get(batch_id, caller().sees)
    if not batch.is_over:
        batch = services.store.batches.cancel(batch, services.store.now_ms())
    return jsonify(view(batch))


def view(batch: Batch) -> dict[str, Any]:
    """Show a batch as OpenAI does."""
    is_ending = batch.cancelling_ms and batch.status in ("validating", "in_progress")
    times = {
        f"{name}_at": getattr(batch, f"{name}_ms") // 1000 or None
        for name in ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
    }
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": {"object": "list", "data": json.loads(batch.errors)} if batch.errors else None,
        "input_file_id": batch.input_file,
        "completion_window": "24h",
        "status": "cancelling" if is_ending else batch.status,
        "output_file_id": batch.output_file or None,
        "error_file_id": batch.error_file or None,
        "created_at": batch.created_ms // 1000,
        "expires_at": batch.ends_ms // 1000,
        **times,
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "metadata": json.loads(batch.metadata),
    }
