"""The real questions an engine of Phi-4 has to answer before its worker takes a job."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from phi4.errors import EngineError
from worker.engines.base import Call, Engine, ReadPage, TranscribeClip

_TOKENS = 8


def probe(engine: Engine, serve: str) -> None:
    """Let the engine look at one picture and hear one clip, as far as it serves them. Raises `EngineError`.

    Only that an answer comes is checked, not what it says: any weights, random ones too, must pass.
    """
    if serve in ("all", "vision"):
        _answers(engine, ReadPage(_picture(), max_tokens=_TOKENS))
    if serve in ("all", "speech"):
        _answers(engine, TranscribeClip(_clip(), max_tokens=_TOKENS))


def _answers(engine: Engine, task: ReadPage | TranscribeClip) -> None:
    answer = engine.run(task, Call(request_id="probe"))
    if answer.completion_tokens < 1:
        raise EngineError(f"The engine gives no answer to its probe ({type(task).__name__}).")


def _picture() -> Image.Image:
    page = Image.new("RGB", (448, 448), "white")
    ImageDraw.Draw(page).text((40, 200), "READY", "black", ImageFont.load_default(60))
    return page


def _clip() -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    time = np.arange(16_000) / 16_000
    return (0.2 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
