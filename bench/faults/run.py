"""Runs rounds of one fault: a service, a mix of jobs on it, the fault at a random moment, the verdict."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import httpx

from bench.faults.judge import Judge, Verdict
from bench.faults.kept import Record
from bench.faults.mix import KINDS, Kind, Mix
from bench.faults.processes import Processes, client, processes
from tests.servers import Web, web


@dataclass
class Scene:
    """What a fault may break, and the moment from which recovery counts."""

    service: Processes
    mix: Mix
    http: httpx.Client
    chance: random.Random
    #: Faults that last are scaled by it: 1 in `make faults`, less in tests.
    scale: float
    over_at: float = 0.0

    def wait(self, least: float, most: float) -> None:
        """Wait for a random time, in seconds."""
        time.sleep(self.chance.uniform(least, most) * self.scale)

    def over(self) -> None:
        """The fault is over: what was accepted before now has to recover."""
        self.over_at = time.monotonic()


@dataclass(frozen=True)
class Fault:
    """One way to break the service; `strike` breaks it and lets it be again, while the mix runs."""

    what: str
    strike: Callable[[Scene], None]
    env: Mapping[str, str] = field(default_factory=dict)
    kinds: tuple[Kind, ...] = KINDS
    #: Of the form, for every job.
    fields: Mapping[str, str] = field(default_factory=dict)
    #: Gives the service; the default one has nothing special about it.
    service: Callable[..., AbstractContextManager[Processes]] = processes
    #: Errors with which a job, or a part of one, may fail under this fault.
    excused: tuple[str, ...] = ()
    #: No job may take longer than this after a fault, in seconds.
    bound: float = 120.0
    #: Runs after the verdict and says what else is wrong.
    after: Callable[[Scene], list[str]] = lambda _: []


#: A test's service notices the loss of a worker sooner.
SHORT = {"PHI4_LEASE_SECONDS": "2", "PHI4_HEARTBEAT_SECONDS": "0.2", "PHI4_REAP_SECONDS": "0.2"}


@dataclass(frozen=True)
class Stage:
    """A running service, who receives its webhooks, and a client of it."""

    service: Processes
    receiver: Web
    http: httpx.Client


@contextmanager
def stage(fault: Fault, *, short: bool) -> Iterator[Stage]:
    """Start the service as a fault needs it."""
    env = {**(SHORT if short else {}), **fault.env}
    with web() as receiver, fault.service(**env) as service, client(service) as http:
        yield Stage(service, receiver, http)


def run(fault: Fault, rounds: int, at: Stage, *, short: bool, say: Callable[[str], None], seed: int = 0) -> Record:
    """Run rounds on one service. Raises `AssertionError` for an answer or an end that no fault excuses."""
    verdicts: list[Verdict] = []
    judge = Judge(at.http, at.receiver, bound=fault.bound, excused=fault.excused)
    for number in range(1, rounds + 1):
        at.service.codes.clear()
        mix = Mix(at.service, at.receiver.url, fault.kinds, seed=f"{number} {fault.what}", fields=fault.fields)
        scene = Scene(at.service, mix, at.http, random.Random(f"{seed} {number}"), 0.4 if short else 1.0)
        verdict = _round(fault, scene, judge)
        assert not (wrong := [*mix.wrong, *fault.after(scene)]), wrong
        verdicts.append(verdict)
        say(_told(number, rounds, mix, verdict))
    lost, doubled, stuck = (sum(getattr(v, name) for v in verdicts) for name in ("lost", "doubled", "stuck"))
    return Record(fault.what, rounds, lost, doubled, stuck, max(v.recovery_s for v in verdicts))


def _round(fault: Fault, scene: Scene, judge: Judge) -> Verdict:
    scene.mix.begin()
    try:
        scene.wait(1, 4)
        fault.strike(scene)
        scene.over_at = scene.over_at or time.monotonic()
        scene.wait(0.5, 2)
    finally:
        scene.mix.end()
    scene.service.await_ready()
    return judge(scene.mix.accepted, fault_at=scene.over_at)


def _told(number: int, rounds: int, mix: Mix, verdict: Verdict) -> str:
    refusals = ", ".join(f"{word} {count}" for word, count in sorted(mix.refusals.items())) or "none"
    counts = f"lost {verdict.lost}, doubled {verdict.doubled}, stuck {verdict.stuck}"
    jobs = f"{len(mix.accepted)} jobs ({mix.replayed} accepted unheard)"
    line = f"  {number}/{rounds}: {jobs}, {counts}, recovery {verdict.recovery_s} s, refused: {refusals}"
    return "\n".join([line, *(f"    {why}" for why in verdict.why)])
