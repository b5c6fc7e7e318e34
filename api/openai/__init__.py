"""The routes that OpenAI's clients use: models, chat completions, transcriptions and translations."""

from __future__ import annotations

import time

from flask import Blueprint, Response, jsonify

from api.answers import check_model
from api.openai import audio, chat
from api.services import Services

#: Where errors have OpenAI's shape.
PATHS = ("/v1/models", "/v1/chat", "/v1/audio")


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

    return routes
