"""Engines that do what their prompt says, so that tests can make parts slow, fail, or kill their worker."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL.Image import Image

from phi4.errors import Cancelled, CannotAnswer, EngineDead, EngineError
from worker.engines.base import Answer, AskImages, Call, Chat, Modality, ReadPage, Span, Task, TranscribeClip


class Scripted:
    """Obeys a page's prompt or the question: "sleep 1.5", "fail", "fail once", "cannot", "raise", "exit", "die".

    "fail thrice" fails as often as one run tries a part. "speak 0.1 one|two" tells a text in pieces, with a pause after
    each; with "stutter" it begins twice. "hang 9" sleeps too, and is deaf to a stop.
    """

    name = "scripted"
    model = "scripted-1"
    modalities: frozenset[Modality] = frozenset({"vision", "speech", "text"})
    slots = 8
    ahead = 0
    most_pixels: int | None = 10_000_000

    def __init__(self) -> None:
        self._dead = False
        self._seen: Counter[str] = Counter()

    def start(self, stage: Callable[[str], None]) -> None:
        """Be ready at once."""
        stage("probing")

    def check(self) -> None:
        """Tell whether "die" was asked for."""
        if self._dead:
            raise EngineDead

    def stop(self) -> None:
        """Hold nothing."""

    def run(self, task: Task, call: Call) -> Answer:
        """Obey, then answer with what was seen."""
        self.check()
        self._obey(_words(task), call)
        match task:
            case ReadPage():
                return Answer(f"page {task.image.width}x{task.image.height}", prompt_tokens=10, completion_tokens=3)
            case AskImages():
                return Answer(f"{len(task.images)} images: {task.question}")
            case TranscribeClip():
                seconds = len(task.samples) / 16_000
                half = round(seconds / 2, 3)
                return Answer("one two", spans=(Span(0.0, half, "one"), Span(half, seconds, "two")), language="en")
            case Chat():
                return _chat(task)

    def _obey(self, words: str, call: Call) -> None:
        if found := re.search(r"speak ([\d.]+) (\S+)", words):
            if "stutter" in words:
                call.on_delta("ehm")
                call.on_restart()
            for piece in found.group(2).split("|"):
                call.on_delta(piece)
                _sleep(float(found.group(1)), call)
        if found := re.search(r"sleep ([\d.]+)", words):
            _sleep(float(found.group(1)), call)
        if found := re.search(r"hang ([\d.]+)", words):
            time.sleep(float(found.group(1)))
        if found := re.search(r"record (\S+)", words):
            with Path(found.group(1)).open("a") as file:
                file.write(f"{call.request_id}\n")
        if limited := re.search(r"fail (once|thrice)", words):
            self._seen[words] += 1
            if self._seen[words] <= {"once": 1, "thrice": 3}[limited.group(1)]:
                raise EngineError("This failed on purpose, and will not for ever.")
        elif "fail" in words:
            raise EngineError("This failed on purpose.")
        if "cannot" in words:
            raise CannotAnswer("This engine cannot answer this on purpose.")
        if "raise" in words:
            raise RuntimeError("a bug on purpose")
        if "exit" in words:
            os._exit(9)
        if "die" in words:
            self._dead = True
            raise EngineDead


class Other(Scripted):
    """Another engine, by name."""

    name = "other"


class Slow(Scripted):
    """Loads for a minute."""

    def start(self, stage: Callable[[str], None]) -> None:
        """Say so, and load."""
        stage("loading")
        time.sleep(60)


class Talkative(Scripted):
    """Writes to stdout in each of the ways that vLLM and its libraries do."""

    def start(self, stage: Callable[[str], None]) -> None:
        """Talk."""
        print("loading", flush=True)
        os.write(1, b"a library says hello\n")
        subprocess.run(["echo", "its process says hello"], check=True)


class Instant(Scripted):
    """Answers at once, as a benchmark of everything else needs it."""

    slots = 16


class FixedLength(Instant):
    """Says that its answers have as many tokens as were asked for, as the GPU bench's engine does."""

    def run(self, task: Task, call: Call) -> Answer:
        """Answer at once."""
        return replace(super().run(task, call), completion_tokens=task.max_tokens or 0)


def _words(task: Task) -> str:
    match task:
        case AskImages():
            return task.question
        case Chat():
            return " ".join(part for part in task.turns[-1].content if isinstance(part, str))
    return task.prompt or ""


def _chat(task: Chat) -> Answer:
    """What was spoken, the JSON that was asked for, or the turns as they came with how each was to be answered."""
    if found := re.search(r"speak ([\d.]+) (\S+)", _words(task)):
        return Answer(found.group(2).replace("|", ""), prompt_tokens=7, completion_tokens=2)
    if task.response_schema is not None:
        data = {"schema": task.response_schema}
        return Answer(json.dumps(data), data=data, prompt_tokens=7, completion_tokens=5)
    if "how" in _words(task):
        sampling = [task.max_tokens, task.temperature, task.top_p, task.seed, list(task.stop), task.detail]
        return Answer(json.dumps(sampling), finish_reason="length", prompt_tokens=7, completion_tokens=4)
    turns = " ".join(f"[{turn.role}: {' '.join(map(_piece, turn.content))}]" for turn in task.turns)
    return Answer(turns, prompt_tokens=7, completion_tokens=3)


def _piece(part: object) -> str:
    if isinstance(part, Image):
        return f"picture {part.width}x{part.height}"
    return f"sound {len(part) / 16_000:.2f} s" if isinstance(part, np.ndarray) else str(part)


def _sleep(seconds: float, call: Call) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if call.cancelled.wait(0.01):
            raise Cancelled
