"""The worker's composition root: builds what a role needs once, and runs Celery over it until it is told to stop."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from celery import Celery, signals
from celery.exceptions import SecurityWarning

from phi4 import tracing
from phi4.blobs import Blobs
from phi4.errors import EngineDead, EngineUnavailable, Phi4Error
from phi4.job import INFER_QUEUES, SIDE_QUEUES, new_id
from phi4.log import log, set_up
from phi4.queue import TASK, Tickets, celery_app
from phi4.settings import Settings
from phi4.store import Store, WorkerInfo
from worker import metrics
from worker.arrivals import Arrivals
from worker.cache import ResultCache
from worker.deltas import Deltas
from worker.engines.base import Engine
from worker.engines.choose import create_engine
from worker.finish import Finish
from worker.gate import Gate
from worker.in_flight import InFlight
from worker.infer import Infer
from worker.outgoing import Outgoing
from worker.prepare import Prepare
from worker.reaper import Reaper
from worker.reports import Reports
from worker.runner import Runner
from worker.webhooks import Webhooks

Role = Literal["infer", "side"]

_log = logging.getLogger(__name__)
#: Preparation waits for disks and networks as much as it computes.
_SIDE_THREADS = 4
#: By how much side workers are nicer than engines: while both want a core, they get a tenth of it.
_NICE = 10
#: A thread that comes back from Redis, a disk or torch waits up to this long for the interpreter while another one
#: computes; a part takes a hundred such steps, and Python's own limit is 5 ms.
_SWITCH_S = 0.0005
#: What a supervisor sees when the engine is gone (BSD's EX_SOFTWARE).
_EXIT_ENGINE = 70


class Worker:
    """One worker process: its parts, and what it says of itself."""

    def __init__(self, settings: Settings, role: Role) -> None:
        self.settings = settings
        self.role = role
        self.name = f"{role}-{socket.gethostname()}-{os.getpid()}-{new_id('w')[-6:]}"
        self.stage = "starting"
        self.engine: Engine | None = None
        self.exit_code = 0
        self._leaving: threading.Thread | None = None
        self.tracing = tracing.start(settings, f"phi4-worker-{role}")
        self.celery: Celery = celery_app(settings.redis_url)
        self.store = Store.at(settings.redis_url, allow_evicting=settings.allow_evicting_redis)
        self.blobs = Blobs(settings.blobs_url, min_free_bytes=settings.min_free_disk_mb << 20)
        self.tickets = Tickets(self.celery)
        self.outgoing = Outgoing(settings.allowed_hosts)
        self.in_flight = InFlight(
            self.store,
            lease_ms=self.lease_ms,
            every=settings.heartbeat_seconds,
            hang_after=settings.hang_seconds,
            describe=self.describe,
            on_hang=self._hangs,
        )
        self.deltas = Deltas(self.store)
        self.services = self._side_services() if role == "side" else []
        self.webhooks = next((s for s in self.services if isinstance(s, Webhooks)), None)

    @property
    def lease_ms(self) -> int:
        """How long a unit is this worker's without a sign of life."""
        return int(self.settings.lease_seconds * 1000)

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues this worker takes from, most urgent first."""
        listed = self.settings.listed_queues
        if self.role == "side":
            return tuple(q for q in SIDE_QUEUES if q in listed) or SIDE_QUEUES
        can = self.engine.modalities if self.engine else frozenset()
        wanted = can if self.settings.serve == "all" else can & {self.settings.serve}
        served = [q for q in INFER_QUEUES if q.split(".")[1] in wanted]
        return tuple(q for q in listed if q in served or q == "prepare") if listed else tuple(served)

    @property
    def threads(self) -> int:
        """How many units run at once."""
        if self.engine is None:
            return _SIDE_THREADS
        return min(self.settings.max_in_flight, self.engine.slots) + self.engine.ahead

    def describe(self, in_flight: int) -> WorkerInfo:
        """Say what this worker is and does; asked every second, which is when an idle engine's death is noticed."""
        engine = self.engine
        if engine is not None and self.stage == "ready":
            self._check(engine)
        return WorkerInfo(
            name=self.name,
            queues=self.queues,
            stage=self.stage,
            engine=engine.name if engine else "",
            model=engine.model if engine else "",
            slots=self.threads,
            in_flight=in_flight,
        )

    def _check(self, engine: Engine) -> None:
        try:
            engine.check()
        except EngineDead:
            self._engine_died()

    def load_engine(self) -> None:
        """Load the engine and let it answer its probe; the stages show in `/health`."""
        self.engine, reason = create_engine(self.settings)
        log(_log, "engine chosen", engine=self.engine.name, model=self.engine.model, reason=reason)
        if not self.queues:
            raise EngineUnavailable(
                f"PHI4_QUEUES={self.settings.queues} names nothing that this worker serves: it is for "
                f"{' and '.join(sorted(self.engine.modalities))}, with PHI4_SERVE={self.settings.serve}."
            )
        self.engine.start(self._enter)

    def runner(self) -> Runner:
        """Build what runs units."""
        settings = self.settings
        arrivals = Arrivals(self.blobs, self.outgoing, settings)
        reports = Reports(self.store, self.blobs, self.tickets)
        finish = Finish(self.store, self.blobs, reports, ResultCache(self.store, settings))
        return Runner(
            name=self.name,
            store=self.store,
            reports=reports,
            in_flight=self.in_flight,
            finish=finish,
            prepare=Prepare(self.store, self.blobs, reports, arrivals, finish, settings, worker=self.name),
            infer=self._infer(self.engine) if self.engine else None,
            on_engine_dead=self._engine_died,
            lease_ms=self.lease_ms,
            gate=Gate(),
            finishes=self.engine is None or not self.engine.ahead,
            tracing=self.tracing,
        )

    def _infer(self, engine: Engine) -> Infer:
        return Infer(self.blobs, engine, self.deltas, part_tries=self.settings.part_tries, tracing=self.tracing)

    def run(self) -> int:
        """Serve until SIGTERM; returns the exit code."""
        self.in_flight.start()
        if self.role == "infer":
            sys.setswitchinterval(_SWITCH_S)
            self.load_engine()
            self.deltas.start()
        else:
            _give_way()
        self._register_task(self.runner())
        for service in self.services:
            service.start()
        signals.worker_ready.connect(self._on_ready, weak=False)
        signals.worker_shutting_down.connect(self._on_shutting_down, weak=False)
        self._consume()
        self._close()
        return self.exit_code

    def _consume(self) -> None:
        celery_worker = self.celery.Worker(
            pool="threads",
            concurrency=self.threads,
            queues=list(self.queues),
            hostname=f"{self.name}@{socket.gethostname()}",
            without_gossip=True,
            without_mingle=True,
            loglevel=self.settings.log_level,
            quiet=True,
        )
        celery_worker.start()
        self.exit_code = self.exit_code or int(celery_worker.exitcode or 0)

    def _register_task(self, runner: Runner) -> None:
        @self.celery.task(name=TASK)  # type: ignore[untyped-decorator]  # Celery ships no types
        def work(queue: str) -> None:
            """One ticket: wake the webhooks, or run the next unit of a queue."""
            if queue == "webhooks":
                if self.webhooks is not None:
                    self.webhooks.wake()
                return
            try:
                runner.work(queue)
            except Phi4Error as error:
                # The store is away or full: the work is still there, and the reaper sends new tickets for it.
                log(_log, "no work taken", level=logging.WARNING, code=error.code, error=error.message)

    def _side_services(self) -> list[Reaper | Webhooks]:
        settings = self.settings
        webhooks = Webhooks(
            self.store,
            self.blobs,
            self.outgoing,
            secrets=settings.webhook_secrets,
            seconds=settings.webhook_seconds,
            per_host=settings.webhooks_per_host,
            tracing=self.tracing,
        )
        reaper = Reaper(
            self.store,
            self.blobs,
            self.tickets,
            worker=self.name,
            every=settings.reap_seconds,
            max_deaths=settings.max_deaths,
        )
        return [reaper, webhooks] if "webhooks" in self.queues else [reaper]

    def _enter(self, stage: str) -> None:
        self.stage = stage
        log(_log, "stage", stage=stage, worker=self.name)
        try:
            self.in_flight.announce()
        except Phi4Error:
            return  # it shows at the next heartbeat

    def _on_ready(self, **_: Any) -> None:
        if self.engine is not None:
            metrics.ENGINE_READY.labels(self.engine.name).set(1)
        self._enter("ready")

    def _on_shutting_down(self, **_: Any) -> None:
        """Drain: what does not end in time goes back to its queue."""
        self._enter("draining")
        timer = threading.Timer(self.settings.drain_seconds, self.in_flight.stop_all)
        timer.daemon = True
        timer.start()

    def _engine_died(self) -> None:
        """Take nothing more, give everything back, and end so that the supervisor starts a fresh worker."""
        if self.exit_code:
            return
        self.exit_code = _EXIT_ENGINE
        log(_log, "engine died", level=logging.ERROR, worker=self.name)
        self.in_flight.stop_all()
        os.kill(os.getpid(), signal.SIGTERM)

    def _hangs(self) -> None:
        """End although a native call never will: it cannot be killed in its thread, and would keep its slot."""
        if self._leaving is None:
            self.exit_code = self.exit_code or _EXIT_ENGINE
            self._leaving = threading.Thread(target=self._leave_the_hung, name="leaving", daemon=True)
            self._leaving.start()
            os.kill(os.getpid(), signal.SIGTERM)

    def _leave_the_hung(self) -> None:
        """Let go of what hangs, drain the rest, and end the process from outside Celery, which would wait for ever."""
        runner, let_go = self.runner(), set[str]()
        ends = time.monotonic() + self.settings.drain_seconds + 2 * self.settings.hang_seconds
        while {unit.member for unit in self.in_flight.units()} - let_go and time.monotonic() < ends:
            for unit in self.in_flight.hung():
                if unit.member not in let_go:
                    runner.let_go(unit)
                    let_go.add(unit.member)
            time.sleep(0.1)
        self.in_flight.stop()
        log(_log, "worker ended beside what hangs", level=logging.ERROR, worker=self.name, units=len(let_go))
        os._exit(self.exit_code)

    def _close(self) -> None:
        for service in self.services:
            service.stop()
        self.in_flight.stop()
        if self.engine is not None:
            self.deltas.stop()
            self.engine.stop()
        log(_log, "worker ended", worker=self.name, exit_code=self.exit_code)


def _give_way() -> None:
    """Leave cores to engines and API from here on; threads that run already, such as the leases', keep their rank."""
    os.nice(_NICE)
    # Where the kernel shares cores out by session first, niceness counts within one only, and `phi4 up` gives each
    # process its own. A session that others share, such as a terminal's, stays as it is.
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(_NICE))


# Celery warns root because of pickle, which this service does not accept.
warnings.simplefilter("ignore", SecurityWarning)


def run(settings: Settings, role: Role, *, exit: Callable[[int], Any] = sys.exit) -> None:
    """Run one worker process and end it with its exit code."""
    set_up(settings.log_format, settings.log_level)
    # Until Celery listens: the first process of a container would ignore it, and a model may load for minutes.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    metrics.serve(settings.metrics_host, settings.metrics_port)
    try:
        code = Worker(settings, role).run()
    except Phi4Error as error:
        log(_log, "worker cannot start", level=logging.ERROR, code=error.code, error=error.message)
        code = 1
    except Exception:
        # Whatever keeps an engine from starting must end the process, or it would take work for ever and do none.
        _log.exception("worker cannot start")
        code = 1
    exit(code)
