"""Webhook deliveries: scheduled when a job changes, taken when due, and scheduled again until they arrive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import redis

from phi4.store.keys import key
from phi4.store.scripts import Scripts

HookOutcome = Literal["delivered", "retry", "given_up"]


@dataclass(frozen=True, slots=True)
class Hook:
    """One delivery that is due."""

    name: str  #: `<job>|<event>|<attempt of the job>`
    tries: int
    event_ms: int  #: when the event happened
    url: str

    @property
    def job_id(self) -> str:
        """The job the event is about."""
        return self.name.split("|")[0]

    @property
    def event(self) -> str:
        """What happened, e.g. `job.completed`."""
        return self.name.split("|")[1]


class Hooks:
    """The schedule of deliveries."""

    def __init__(self, client: redis.Redis, scripts: Scripts) -> None:
        self._client = client
        self._scripts = scripts

    def take(self, lease_ms: int) -> Hook | None:
        """Take the most overdue delivery; unless it is reported on, it is due again when the lease ends."""
        reply = self._scripts.run("take_hook", lease_ms)
        return Hook(*reply) if reply else None

    def tried(self, hook: Hook, outcome: HookOutcome, answer: str, wait_ms: int = 0) -> None:
        """Report a try; `answer` says in a word what the receiver said, `wait_ms` when to try again."""
        self._scripts.run("hook_tried", hook.name, outcome, answer, wait_ms)

    def outcomes(self) -> dict[str, int]:
        """Count the tries of all deliveries by what came of them."""
        counts = cast(dict[str, str], self._client.hgetall(key("hook_outcomes")))
        return {outcome: int(n) for outcome, n in counts.items()}
