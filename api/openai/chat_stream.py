"""Tells a chat completion while it is written: the events of its job as OpenAI's chunks."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from typing import Any

from api.answers import Watch
from api.openai import errors
from api.openai.completion import Completion, usage_of
from api.problems import Failure, failure_of
from api.services import Services
from phi4.errors import EngineError, NotFound, Phi4Error
from phi4.job import Job
from phi4.store import Event

_log = logging.getLogger(__name__)
#: A stream begins with the first words; when they take longer, without them, so that the client sees it is alive.
_PATIENCE_S = 10.0
#: Proxies and clients drop a connection that says nothing.
_HEARTBEAT_S = 15.0


class ToldText:
    """The text that a client was told; it can only grow, though an engine may begin anew.

    White space at the ends is not told: answers come without it.
    """

    def __init__(self) -> None:
        self._heard = b""
        self._told = ""

    def hear(self, offset: int, text: str) -> str:
        """Take a piece of text, `offset` bytes of UTF-8 from its beginning; give what is new to the client."""
        if offset == 0:
            self._heard = b""
        if offset == len(self._heard):  # else a piece was missed, and the whole text will tell
            self._heard += text.encode()
        return self._new(self._heard.decode().strip()) or ""

    def rest(self, whole: str) -> str | None:
        """Give what is left of the whole text; None when the client was told something else."""
        return self._new(whole)

    def _new(self, text: str) -> str | None:
        if not text.startswith(self._told):
            return None
        new = text[len(self._told) :]
        self._told = text
        return new


class ChatStream:
    """One client's stream; it holds a thread until its job ends or its client leaves, and then the job ends too."""

    def __init__(self, services: Services, completion: Completion) -> None:
        self._services = services
        self._completion = completion
        self._watch = Watch(services, completion.job)
        self._events = services.store.events.follow(completion.job.id)
        self._text = ToldText()
        self._first = ""
        self._ended: tuple[Job, dict[str, Any]] | None = None

    def begin(self) -> None:
        """Wait a while for the first words, so that what fails before them has a status of its own.

        Raises what kept the job from an answer; the job is over then.
        """
        until = time.monotonic() + _PATIENCE_S
        try:
            for event in self._events:
                self._first = self._take(event)
                if self._first or self._ended or time.monotonic() > until:
                    return
            raise NotFound("The job of this request was deleted.")
        except BaseException:
            self.close()
            raise

    def chunks(self) -> Iterator[str]:
        """Give the stream piece by piece; an error in the middle is told as the last of them."""
        try:
            yield self._delta({"role": "assistant", "content": self._first, "refusal": None})
            yield from self._words()
            yield from self._end()
        except Phi4Error as error:
            yield _frame(errors.body(failure_of(error)))
        except Exception:
            _log.exception("stream failed", extra={"phi4_fields": self._completion.job.log_context()})
            yield _frame(errors.body(Failure(500, "internal_error", "Something went wrong on our side.")))

    def close(self) -> None:
        """End the stream, and its job when nothing else has."""
        self._events.close()
        if self._ended is None:
            self._watch.cancel()

    def _words(self) -> Iterator[str]:
        said = time.monotonic()
        for event in () if self._ended else self._events:
            if new := self._take(event):
                yield self._delta({"content": new})
                said = time.monotonic()
            elif time.monotonic() - said >= _HEARTBEAT_S:
                yield ": still here\n"
                said = time.monotonic()
            if self._ended:
                return
        if self._ended is None:
            raise NotFound("The job of this request was deleted.")

    def _take(self, event: Event | None) -> str:
        """Take one event; gives the words that are new. Raises what kept the job from an answer."""
        if event is None:
            self._watch.look()
        elif event.name == "delta":
            return self._text.hear(event.data["offset"], event.data["text"])
        elif event.is_last:
            job = self._services.store.jobs.get(self._completion.job.id, self._completion.job.owner)
            self._ended = job, self._services.views.result(job)
        return ""

    def _end(self) -> Iterator[str]:
        assert self._ended is not None
        job, result = self._ended
        rest = self._text.rest(result["answer"])
        if rest is None:
            raise EngineError("The engine began its answer anew, and it reads otherwise; send the request again.")
        if rest:
            yield self._delta({"content": rest})
        yield self._delta({}, result["finish_reason"])
        if self._completion.include_usage:
            yield _frame(self._completion.chunk([], usage_of(job)))
        yield "data: [DONE]\n\n"

    def _delta(self, delta: dict[str, Any], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _frame(self._completion.chunk([choice]))


def _frame(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"
