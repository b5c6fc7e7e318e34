"""The routes that OpenAI's clients use: models, chat completions, transcriptions, translations, files, batches."""

from __future__ import annotations

import time

from flask import Blueprint, Response, jsonify

from api.answers import check_model
from api.openai import audio, batches, chat, files
from api.services import Services

#: What is not here, and asked for by the same clients.
_NOT_SERVED = ("/v1/completions", "/v1/embeddings", "/v1/images", "/v1/moderations", "/v1/responses", "/v1/uploads")
#: Where errors have OpenAI's shape.
PATHS = ("/v1/models", "/v1/chat", "/v1/audio", "/v1/files", "/v1/batches", *_NOT_SERVED)


def blueprint(services: Services) -> Blueprint:
    """Make the routes over the services of this process."""
    routes = Blueprint("openai", __name__, url_prefix="/v1")
    model = {
        "id": services.settings.served_name,
        "object": "model",
        "created": int(time.time()),
        "owned_by": "phi4-service",
    }

    @routes.get("/models")
    def models() -> Response:
        """List the one model."""
        return jsonify({"object": "list", "data": [model]})

    @routes.get("/models/<path:model_id>")
    def one_model(model_id: str) -> Response:
        """Show the model, by whichever of its names."""
        check_model(services, model_id)
        return jsonify(model)

    @routes.post("/chat/completions")
    def completions() -> Response:
        """Answer a conversation, whole or as a stream."""
        return chat.complete(services)

    @routes.post("/audio/transcriptions")
    def transcriptions() -> Response:
        """Write down a recording."""
        return audio.answer(services, "transcribe")

    @routes.post("/audio/translations")
    def translations() -> Response:
        """Translate a recording into English."""
        return audio.answer(services, "translate")

    _add_files(routes, services)
    _add_batches(routes, services)
    return routes


def _add_files(routes: Blueprint, services: Services) -> None:
    @routes.post("/files")
    def upload() -> Response:
        """Store a file."""
        return files.upload(services)

    @routes.get("/files")
    def list_files() -> Response:
        """List the caller's files."""
        return files.listed(services)

    @routes.get("/files/<file_id>")
    def one_file(file_id: str) -> Response:
        """Show a file."""
        return files.shown(services, file_id)

    @routes.get("/files/<file_id>/content")
    def content(file_id: str) -> Response:
        """Give a file's bytes."""
        return files.content(services, file_id)

    @routes.delete("/files/<file_id>")
    def erase_file(file_id: str) -> Response:
        """Erase a file."""
        return files.erased(services, file_id)


def _add_batches(routes: Blueprint, services: Services) -> None:
    @routes.post("/batches")
    def create() -> Response:
        """Begin a batch."""
        return batches.create(services)

    @routes.get("/batches")
    def list_batches() -> Response:
        """List the caller's batches."""
        return batches.listed(services)

    @routes.get("/batches/<batch_id>")
    def one_batch(batch_id: str) -> Response:
        """Show a batch."""
        return batches.shown(services, batch_id)

    @routes.post("/batches/<batch_id>/cancel")
    def cancel(batch_id: str) -> Response:
        """End a batch."""
        return batches.cancelled(services, batch_id)
