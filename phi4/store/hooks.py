"""Webhook deliveries: scheduled when a job changes, taken when due, scheduled again until they arrive, and told of."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal, cast

import redis
from ulid import ULID

from phi4 import records
from phi4.errors import DeliveryUnderWay, NotFound
from phi4.store.keys import key
from phi4.store.scripts import Scripts

HookOutcome = Literal["delivered", "retry", "gone", "given_up"]
#: Receivers that are counted, those due first.
_MOST_RECEIVERS = 1_000
DeliveryState = Literal["pending", "delivered", "gone", "given_up"]


@dataclass(frozen=True, slots=True)
class Hook:
    """One delivery that is due."""

    name: str  #: `<job>|<event>|<attempt of the job>`
    tries: int  #: since it was scheduled, or replayed
    event_ms: int  #: when the event happened
    url: str
    error: str | None = None  #: the job's at that time, as JSON, or ''; None: an older version did not keep it

    @property
    def id(self) -> str:
        """The event's id, the same on every try, so that receivers can tell a repeat."""
        tail = hashlib.sha256(self.name.encode()).digest()[:10]
        return f"evt_{str(ULID(self.event_ms.to_bytes(6, 'big') + tail)).lower()}"

    @property
    def job_id(self) -> str:
        """The job the event is about."""
        return self.name.split("|")[0]

    @property
    def event(self) -> str:
        """What happened, e.g. `job.completed`."""
        return self.name.split("|")[1]


@dataclass(frozen=True, slots=True)
class Try:
    """One try to deliver."""

    number: int
    at_ms: int  #: when it began
    took_ms: int
    answer: str  #: the receiver's status, or what went wrong in a few words


@dataclass(frozen=True, slots=True)
class Delivery:
    """What has become of one event."""

    hook: Hook
    state: DeliveryState
    due_ms: int  #: when the next try is, or was, to begin; 0 when there is none
    tries: tuple[Try, ...]  #: the last ones, oldest first


class Hooks:
    """The schedule of deliveries, and their log."""

    def __init__(self, client: redis.Redis, scripts: Scripts) -> None:
        self._client = client
        self._scripts = scripts

    def take(self, lease_ms: int, *, per_host: int, per_owner: int) -> Hook | None:
        """Take the most overdue delivery.

        Of those to a receiver with fewer than `per_host` under way, and of an owner with fewer than `per_owner`, in all
        workers together. Unless it is reported on, it is due again when the lease ends.
        """
        reply = self._scripts.run("take_hook", lease_ms, per_host, per_owner)
        return Hook(*reply) if reply else None

    def tried(self, hook: Hook, outcome: HookOutcome, answer: str, *, wait_ms: int = 0, took_ms: int = 0) -> None:
        """Report a try; `answer` says in a few words what the receiver said, `wait_ms` when to try again."""
        self._scripts.run("hook_tried", hook.name, hook.url, outcome, answer, wait_ms, took_ms)

    def deliveries(self, job_id: str) -> list[Delivery]:
        """Tell of a job's events that are for a receiver, newest first; of the last runs and tries only."""
        found = self._scripts.run("deliveries", job_id)
        deliveries = [_delivery(Hook(*hook), *state, told=told) for hook, state, told in reversed(found)]
        return sorted(deliveries, key=lambda d: d.hook.event_ms, reverse=True)

    def replay(self, job_id: str, delivery_id: str) -> Delivery:
        """Send an event again now, under the same id, and retry as often as a new one.

        Raises `NotFound`; `DeliveryUnderWay` while it is being sent.
        """
        for delivery in self.deliveries(job_id):
            if delivery.hook.id == delivery_id:
                match self._scripts.run("replay_hook", delivery.hook.name):
                    case "sent":
                        raise DeliveryUnderWay
                    case "ok":
                        return next(d for d in self.deliveries(job_id) if d.hook.id == delivery_id)
        raise NotFound(f"The job has no delivery {delivery_id!r}.")

    def waiting(self) -> dict[str, int]:
        """Count the deliveries that are `due`, wait for a `later` try, or are `sent` right now."""
        counts = cast(list[int], self._scripts.run("hooks_waiting", _MOST_RECEIVERS))
        return dict(zip(("due", "later", "sent"), counts, strict=True))

    def outcomes(self) -> dict[str, int]:
        """Count the tries of all deliveries by what came of them."""
        counts = cast(dict[str, str], self._client.hgetall(key("hook_outcomes")))
        return {outcome: int(n) for outcome, n in counts.items()}


def _delivery(hook: Hook, outcome: str, due_ms: int, *, told: list[str]) -> Delivery:
    state = cast(DeliveryState, outcome if outcome in ("delivered", "gone", "given_up") else "pending")
    return Delivery(
        hook=hook,
        state=state,
        due_ms=due_ms if state == "pending" else 0,
        tries=tuple(records.read(Try, json.loads(text)) for text in told),
    )
