"""Runs one part: loads what preparation made, asks the engine, keeps the answer."""

from __future__ import annotations

import io
import json
import logging
import wave
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from phi4.blobs import Blobs
from phi4.errors import BlobsUnavailable, Cancelled, EngineDead, EngineError, LeaseLost, Phi4Error
from phi4.job import PRIORITIES, Job, Unit, error_json
from phi4.params import AsrParams, ChatParams, ChatPart, OcrParams, VqaParams
from phi4.store import Piece
from phi4.store.work import Outcome
from phi4.tracing import OFF, Tracing
from worker.deltas import Deltas
from worker.engines.base import Answer, AskImages, Call, Chat, Engine, ReadPage, Sound, Task, TranscribeClip, Turn
from worker.in_flight import Held
from worker.media import images

_log = logging.getLogger(__name__)


class Infer:
    """Parts of jobs, answered by one engine."""

    def __init__(
        self, blobs: Blobs, engine: Engine, deltas: Deltas, *, part_tries: int, tracing: Tracing = OFF
    ) -> None:
        self._blobs = blobs
        self._engine = engine
        self._deltas = deltas
        self._part_tries = part_tries
        self._tracing = tracing

    def run(self, held: Held) -> Outcome | None:
        """Answer one part; None when it is to be tried again.

        Raises `Cancelled` when the part was told to stop, `EngineDead` when the engine can do nothing more, and
        `BlobsUnavailable` when its files cannot be reached, which is no fault of the part.
        """
        part = held.unit
        try:
            return self._answer(held)
        except (BlobsUnavailable, Cancelled, EngineDead, LeaseLost):
            raise
        except Phi4Error as error:
            if error.retryable and part.tries + 1 < self._part_tries:
                return None
            return Outcome(error=error_json(error, "run"))
        except Exception as error:
            # Whatever an engine throws is this part's failure, not the worker's end.
            _log.exception("part failed", extra={"phi4_fields": part.job.log_context() | {"part": part.name}})
            if part.tries + 1 < self._part_tries:
                return None
            return Outcome(error=error_json(EngineError(f"The engine failed: {type(error).__name__}."), "run"))

    def _answer(self, held: Held) -> Outcome:
        part = held.unit
        if "error" in part.spec:  # a page that preparation could not make
            return Outcome(error=part.spec["error"])
        task = self._task(part.job, part.spec)
        if held.stopped.is_set():
            raise Cancelled
        answer, last_piece = self._ask(held, task)
        return Outcome(
            out=self._keep(part, answer),
            usage=_usage(part, answer),
            engine=self._engine.name,
            model=self._engine.model,
            last_piece=last_piece,
        )

    def _ask(self, held: Held, task: Task) -> tuple[Answer, Piece | None]:
        part = held.unit
        telling = self._deltas.begin(part)
        call = Call(
            request_id=f"{part.job.id}-{part.name}-{part.token}",
            priority=PRIORITIES.index(part.job.priority),
            on_delta=telling.add,
            on_restart=telling.restart,
            cancelled=held.stopped,
        )
        try:
            return self._traced(held, task, call), self._deltas.rest(telling)
        finally:
            self._deltas.drop(telling)

    def _traced(self, held: Held, task: Task, call: Call) -> Answer:
        about = {"gen_ai.operation.name": "chat", "gen_ai.request.model": self._engine.model}
        with self._tracing.step(f"engine {self._engine.name}", above=held.traceparent, attributes=about) as span:
            answer = self._engine.run(task, call)
            span.note(
                gen_ai__usage__input_tokens=answer.prompt_tokens,
                gen_ai__usage__output_tokens=answer.completion_tokens,
            )
            return answer

    def _keep(self, part: Unit, answer: Answer) -> str:
        """Store an answer; its key carries the attempt's token, so that a late attempt cannot overwrite it."""
        key = f"{part.job.scratch}/{part.name}-{part.token}.json"
        self._blobs.put(key, json.dumps(asdict(answer), ensure_ascii=False).encode())
        return key

    def _stored(self, spec: Mapping[str, Any]) -> bytes:
        """Read what preparation left for a part. Raises `BlobMissing`, `BlobTampered`."""
        return self._blobs.get(spec["blob"], sha256=spec.get("sha256"))

    def _picture(self, spec: Mapping[str, Any]) -> Image:
        return images.decode(self._stored(spec), most_pixels=self._engine.most_pixels)

    def _task(self, job: Job, spec: Mapping[str, Any]) -> Task:
        match job.type:
            case "ocr":
                ocr = OcrParams.model_validate(job.params)
                return ReadPage(
                    image=self._picture(spec),
                    **ocr.model_dump(include={"format", "detail", "prompt", "max_tokens", "temperature"}),
                )
            case "vqa":
                vqa = VqaParams.model_validate(job.params)
                return AskImages(
                    images=tuple(map(self._picture, spec["images"])),
                    **vqa.model_dump(exclude={"pages"}),
                )
            case "asr":
                asr = AsrParams.model_validate(job.params)
                return TranscribeClip(samples=_samples(self._stored(spec)), **asr.model_dump(exclude={"timestamps"}))
            case "chat":
                chat = ChatParams.model_validate(job.params)
                return Chat(
                    turns=self._turns(chat, spec["media"]),
                    stop=tuple(chat.stop),
                    **chat.model_dump(exclude={"messages", "stop"}),
                )

    def _turns(self, chat: ChatParams, media: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[Turn, ...]:
        """Put each input where the messages have it: a document as all its pages, a recording as all its clips."""

        def pieces(part: ChatPart) -> Iterator[str | Image | Sound]:
            if part.input is None:
                yield part.text or ""
                return
            for piece in media[part.input]:
                yield self._picture(piece) if part.type == "image" else _samples(self._stored(piece))

        return tuple(Turn(m.role, tuple(chain.from_iterable(map(pieces, m.content)))) for m in chat.messages)


def _samples(clip: bytes) -> NDArray[np.int16]:
    """Read a clip as preparation wrote it: mono 16-bit WAV."""
    with wave.open(io.BytesIO(clip)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")


def _usage(part: Unit, answer: Answer) -> dict[str, float]:
    usage: dict[str, float] = {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.completion_tokens}
    match part.job.type:
        case "asr":
            return usage | {"seconds": _seconds([part.spec])}
        case "chat":
            media = list(chain.from_iterable(part.spec["media"]))
            clips = [piece for piece in media if "end" in piece]
            return usage | {"pages": len(media) - len(clips)} | ({"seconds": _seconds(clips)} if clips else {})
    return usage | {"pages": len(part.spec.get("images", [0]))}


def _seconds(clips: Sequence[Mapping[str, Any]]) -> float:
    return round(sum(float(clip["end"]) - float(clip["start"]) for clip in clips), 3)
