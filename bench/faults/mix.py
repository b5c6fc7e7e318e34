"""A mix of small jobs of every type, sent by clients that do not give up, as a well-behaved client would."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from bench.faults.processes import ROOT, Processes, client
from tests.scripted_jobs import document, picture

#: Answers that mean "not now": the store is away or full, too much waits, or this key's first request still runs.
_NOT_NOW = (409, 429, 503, 507)
_PAUSE_S = 0.5
_PATIENCE_S = 2


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of job: what is sent, how many parts it has, and how it must end."""

    type: str
    words: str
    files: tuple[bytes, ...]
    parts: int
    ends: str = "completed"
    params: str = ""  #: instead of the words

    def sent_params(self) -> str:
        """The words where the scripted engine, which obeys them, looks for them."""
        return self.params or json.dumps({"question" if self.type == "vqa" else "prompt": self.words})


KINDS = (
    Kind("ocr", "sleep 0.05", (picture(),), 1),
    Kind("ocr", "sleep 0.4", (picture(1), picture(2), picture(3)), 3),
    Kind("ocr", "sleep 0.2", (document(300, 400, 500, 600),), 4),
    Kind("vqa", "sleep 0.1", (picture(4),), 1),
    Kind("vqa", "sleep 1", (picture(5), picture(6)), 1),
    Kind("asr", "sleep 0.1", ((ROOT / "examples" / "inputs" / "talk.mp3").read_bytes(),), 2),
    Kind("ocr", "sleep 0.05 fail", (picture(7),), 1, ends="failed"),
)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job that the service has promised to do, and when (`time.monotonic`)."""

    id: str
    number: int
    kind: Kind
    at: float


@dataclass
class Mix:
    """Clients at work; `accepted` is what they were promised, `refusals` what they were told meanwhile."""

    service: Processes
    webhook_url: str
    kinds: tuple[Kind, ...] = KINDS
    seed: str = ""  #: also what its jobs are told from those of other mixes by
    fields: Mapping[str, str] = field(default_factory=dict)  #: of the form, for every job
    accepted: list[Accepted] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    #: Answers that no fault excuses; a run with one is no run.
    wrong: list[str] = field(default_factory=list)
    replayed: int = 0  #: jobs that an earlier try had made, whose answer got lost
    _numbers: int = 0
    _over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)

    def begin(self, clients: int = 5) -> None:
        """Send jobs until `end`."""
        self._threads = [threading.Thread(target=self._send_on, args=(n,)) for n in range(clients if self.kinds else 0)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Send no more; a job that was being sent is sent until it is taken."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _send_on(self, number: int) -> None:
        chance = random.Random(f"{self.seed} {number}")
        with client(self.service) as http:
            while not self._over.is_set():
                if job := self.send(http, chance.choice(self.kinds)):
                    self._wait_for(http, job)

    def _wait_for(self, http: httpx.Client, job: Accepted) -> None:
        """Wait for a job's start or end, but not for ever: so that less is sent while less is done."""
        try:
            http.get(f"/v1/jobs/{job.id}", params={"wait": _PATIENCE_S})
        except httpx.TransportError as error:
            self.refusals[type(error).__name__] += 1

    def send(self, http: httpx.Client, kind: Kind, *, patience: float = 150.0, **fields: str) -> Accepted | None:
        """Send one job until it is taken, each time with the same key."""
        with self._lock:
            self._numbers += 1
            number = self._numbers
        ends = time.monotonic() + patience
        while time.monotonic() < ends:
            if body := self._try(http, kind, number, fields):
                job = Accepted(body["id"], number, kind, time.monotonic())
                self.accepted.append(job)
                return job
            time.sleep(_PAUSE_S)
        self.wrong.append(f"job {number} was not taken within {patience:g} s")
        return None

    def _try(self, http: httpx.Client, kind: Kind, number: int, fields: dict[str, str]) -> dict[str, Any] | None:
        metadata = json.dumps({"number": f"{self.seed}-{number}"})
        data = {"type": kind.type, "params": kind.sent_params(), "metadata": metadata, "webhook_url": self.webhook_url}
        files = [("file", (f"{n}", content)) for n, content in enumerate(kind.files)]
        headers = {"Idempotency-Key": f"{self.seed}-{number}"}
        try:
            response = http.post("/v1/jobs", data={**data, **self.fields, **fields}, files=files, headers=headers)
        except httpx.TransportError as error:
            self.refusals[type(error).__name__] += 1
            return None
        if response.status_code in (200, 202):
            self.replayed += response.headers.get("Idempotent-Replayed") == "true"
            return dict(response.json())
        self._refused(response)
        return None

    def _refused(self, response: httpx.Response) -> None:
        self.refusals[str(response.status_code)] += 1
        if response.status_code not in _NOT_NOW:
            self.wrong.append(f"{response.status_code} {response.text[:200]}")
        elif response.status_code == 503 and int(response.headers.get("Retry-After", 0)) < 1:
            self.wrong.append("503 without Retry-After")
