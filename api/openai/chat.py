"""Answers `POST /v1/chat/completions`: the job of a conversation, waited for or told as it is written."""

from __future__ import annotations

from collections.abc import Callable

from flask import Response, jsonify

from api import answers
from api.auth import caller
from api.openai import chat_request
from api.openai.chat_request import ChatRequest
from api.openai.chat_stream import ChatStream
from api.openai.completion import Completion
from api.services import Services
from phi4.errors import TooManyStreams
from phi4.job import Job

_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def complete(services: Services) -> Response:
    """Answer a conversation. Raises what keeps it from an answer, also before a stream's first words."""
    chat = chat_request.read(answers.json_body())
    answers.check_model(services, chat.model)
    owner = caller().owner
    params, uploads = chat_request.job_of(
        chat, max_inputs=services.settings.max_inputs, stored=lambda file_id: services.stored(file_id, owner)
    )

    def submit() -> Job:
        return answers.submit(services, "chat", params, uploads, metadata=chat.metadata)

    return _stream(services, chat, submit) if chat.stream else _whole(services, submit)


def _whole(services: Services, submit: Callable[[], Job]) -> Response:
    with answers.place(services.room_to_wait):
        job = answers.wait(services, submit())
    result = services.views.result(job)
    return jsonify(Completion(job, services.settings.served_name).whole(job, result))


def _stream(services: Services, chat: ChatRequest, submit: Callable[[], Job]) -> Response:
    if not services.room_for_streams.acquire(blocking=False):
        raise TooManyStreams
    try:
        job = submit()
        include_usage = bool(chat.stream_options and chat.stream_options.include_usage)
        stream = ChatStream(services, Completion(job, services.settings.served_name, include_usage))
        stream.begin()
    except BaseException:
        services.room_for_streams.release()
        raise
    response = Response(stream.chunks(), mimetype="text/event-stream", headers=_HEADERS)
    response.call_on_close(stream.close)
    response.call_on_close(services.room_for_streams.release)
    return response
