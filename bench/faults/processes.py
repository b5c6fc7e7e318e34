"""The service as processes that may be broken one by one, with a supervisor that starts again whatever ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from bench.faults.proxy import Proxy
from cli.embedded import EmbeddedValkey, free_port
from cli.local import is_ready

ROOT = Path(__file__).parent.parent.parent
ENGINE = "tests.engines:Scripted"
SECRET = "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"
#: As long as `phi4 up` waits before it starts again what died once.
_PAUSE_S = 0.5
_MODULES = {"api": ("api",), "side": ("worker", "side"), "infer": ("worker", "infer"), "up": ("cli", "up")}
_APART = ("valkey", "api", "side", "infer")


def until(holds: Callable[[], object], *, seconds: float, what: str) -> None:
    """Wait until something is so. Raises `TimeoutError`."""
    ends = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > ends:
            raise TimeoutError(f"{what} did not happen within {seconds:g} s")
        time.sleep(0.05)


@dataclass
class Processes:
    """Valkey, the API and both workers; `codes` keeps what each process ended with."""

    folder: Path
    valkey: EmbeddedValkey
    env: dict[str, str]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    codes: dict[str, list[int]] = field(default_factory=dict)
    proxy: Proxy | None = None  #: what its processes reach Valkey through, if anything
    clocks_move: bool = False  #: whether `move_clock` can be used
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """Where the API answers."""
        return f"http://127.0.0.1:{self.env['PORT']}"

    def start(self, name: str) -> None:
        """Start one process, the leader of a session of its own as under `phi4 up`."""
        argv = self.valkey.child().argv if name == "valkey" else (sys.executable, "-m", *self._module(name))
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                argv, env=self.env, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )

    def _module(self, name: str) -> tuple[str, ...]:
        return ("tests.moved_clock", str(self._clock(name)), *_MODULES[name]) if self.clocks_move else _MODULES[name]

    def _clock(self, name: str) -> Path:
        return self.folder / f"{name}.clock"

    def move_clock(self, name: str, seconds: int) -> None:
        """Put a process's wall clock wrong by so many seconds, from now on."""
        self._clock(name).write_text(str(seconds))

    def kill(self, name: str) -> None:
        """Kill a process as the kernel does when memory runs out."""
        self.signal(name, signal.SIGKILL)

    def signal(self, name: str, number: int, *, group: bool = False) -> None:
        """Send a signal to a process or to its whole group."""
        process = self.running[name]
        if process.poll() is None:
            (os.killpg if group else os.kill)(process.pid, number)

    def await_restart(self, name: str, pid: int, seconds: float = 300.0) -> None:
        """Wait until another process than `pid` has taken its place."""
        until(lambda: self.running[name].pid != pid, seconds=seconds, what=f"the restart of {name}")

    def await_ready(self, seconds: float = 300.0) -> None:
        """Wait until a job would be worked on."""
        until(lambda: is_ready(self.url), seconds=seconds, what="readiness")

    def supervise(self) -> None:
        """Start again whatever ends, until told to stop."""
        ended_at: dict[str, float] = {}
        while not self._over.wait(0.05):
            for name, process in tuple(self.running.items()):
                code = process.poll()
                if code is None:
                    continue
                if name not in ended_at:
                    ended_at[name] = time.monotonic()
                    _end_group(process)
                    self.codes.setdefault(name, []).append(code)
                elif time.monotonic() - ended_at[name] > _PAUSE_S:
                    del ended_at[name]
                    self.start(name)

    def end_supervision(self) -> None:
        """Leave the dead dead."""
        self._over.set()

    def end(self) -> None:
        """End everything at once."""
        for process in self.running.values():
            _end_group(process)
            process.wait(10)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End what an ended process left behind, as the supervisor does: it may hold a port or memory."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def processes(
    proxy: Proxy | None = None, *, clocks_move: bool = False, under_up: bool = False, **env: str
) -> Iterator[Processes]:
    """Run the service in an empty folder, its processes apart or as children of one `phi4 up`.

    With `proxy`, all its connections to Valkey pass through that.
    """
    with tempfile.TemporaryDirectory(prefix="phi4-faults-") as folder, EmbeddedValkey(Path(folder) / "v") as valkey:
        own = {k: v for k, v in os.environ.items() if not k.startswith("PHI4_") and k not in ("PORT", "REDIS_URL")}
        redis_port = valkey.port
        if proxy is not None:
            proxy.target, redis_port = valkey.port, proxy.port
        settings = {
            "REDIS_URL": valkey.url.replace(f":{valkey.port}/", f":{redis_port}/"),
            "PORT": str(free_port()),
            "PHI4_DATA_DIR": folder,
            "PHI4_ENGINE": ENGINE,
            "PHI4_METRICS_PORT": "0",
            "PHI4_WEBHOOK_SECRET": SECRET,
            "PHI4_ALLOW_HOSTS": "127.0.0.1",
            "PHI4_MIN_FREE_DISK_MB": "0",
            "PHI4_RESULT_CACHE": "0",
        }
        if under_up:
            del settings["REDIS_URL"]  # it brings its own
        service = Processes(Path(folder), valkey, own | settings | env, proxy=proxy, clocks_move=clocks_move)
        for name in _MODULES:
            service.move_clock(name, 0)
        supervising = threading.Thread(target=service.supervise)
        try:
            for name in ("up",) if under_up else _APART:
                service.start(name)
                if name == "valkey":
                    until(valkey.answers, seconds=30, what="Valkey's answer")
            supervising.start()
            service.await_ready()
            yield service
        finally:
            service.end_supervision()
            if supervising.ident:
                supervising.join()
            service.end()


def client(service: Processes) -> httpx.Client:
    """A client that no proxy comes between."""
    return httpx.Client(base_url=service.url, timeout=30, trust_env=False)
