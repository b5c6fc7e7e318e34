"""An engine that answers at once and says when it was asked, so that everything around an engine can be measured."""

from __future__ import annotations

import time
from collections.abc import Callable

from worker.engines.base import Answer, Call, Modality, Task


class Instant:
    """Answers with the moment it was asked (Unix seconds)."""

    name = "instant"
    model = "instant"
    modalities: frozenset[Modality] = frozenset({"vision", "speech", "text"})
    slots = 8
    ahead = 0
    most_pixels: int | None = None

    def start(self, stage: Callable[[str], None]) -> None:
        """Be ready at once."""
        stage("probing")

    def run(self, task: Task, call: Call) -> Answer:
        """Answer with the time."""
        return Answer(repr(time.time()))

    def check(self) -> None:
        """Never die."""

    def stop(self) -> None:
        """Hold nothing."""


class Typist(Instant):
    """Writes, for half a minute, the moment at which it writes: to many at once."""

    name = "typist"
    slots = 256

    def run(self, task: Task, call: Call) -> Answer:
        """Write a moment every half second."""
        written = []
        for _ in range(60):
            time.sleep(0.5)
            written.append(repr(time.time()))
            call.on_delta(written[-1] + " ")
        return Answer(" ".join(written))
