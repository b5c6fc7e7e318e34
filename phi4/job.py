"""The job as a frozen value: its states, its record, and the pieces a worker is handed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, cast

from ulid import ULID

from phi4 import records
from phi4.errors import Phi4Error
from phi4.params import JobType, modality

#: The version of the record; a worker leaves newer ones in the queue.
RECORD_VERSION = 1

Priority = Literal["high", "normal", "low"]
PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")
WebhookEvent = Literal["job.started", "job.completed", "job.failed", "job.cancelled", "job.expired"]


class Status(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"  #: accepted; being prepared, or waiting for an engine
    IN_PROGRESS = "in_progress"  #: an engine works on at least one part, or did
    CANCELLING = "cancelling"  #: to be cancelled; parts still running are being stopped
    COMPLETED = "completed"  #: has a result
    FAILED = "failed"  #: has an error and no result
    CANCELLED = "cancelled"  #: stopped by its owner or its deadline
    EXPIRED = "expired"  #: its time is over; input and result are erased

    @property
    def is_terminal(self) -> bool:
        """Whether nothing will change any more (but expiry)."""
        return self in (Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.EXPIRED)


def new_id(prefix: str, at_ms: int | None = None) -> str:
    """Make an id such as `job_` + 26 characters, sortable by time: `at_ms` (Unix milliseconds) or this machine's."""
    return f"{prefix}_{str(ULID() if at_ms is None else ULID.from_timestamp(at_ms)).lower()}"


def derived_id(prefix: str, at_ms: int, source: str) -> str:
    """Make an id as `new_id` does, but the same one each time for the same time and source."""
    random_part = hashlib.sha256(source.encode()).digest()[:10]
    return f"{prefix}_{str(ULID.from_bytes(at_ms.to_bytes(6, 'big') + random_part)).lower()}"


def error_json(error: Phi4Error, phase: str) -> dict[str, Any]:
    """Describe an error as a job's `error` field does."""
    return {
        "code": error.code,
        "category": error.category,
        "message": error.message,
        "retryable": error.retryable,
        "phase": phase,
    }


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a job: a stored blob, or a URL that preparation will fetch."""

    blob: str = ""
    url: str = ""
    filename: str = ""
    media_type: str = ""
    bytes: int = 0
    sha256: str = ""
    pages: int | None = None
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """List the fields that are set."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) not in ("", None)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Input:
        """Read what `to_json` wrote."""
        return records.read(cls, fields)


@dataclass(frozen=True, slots=True)
class Share:
    """What jobs may have in flight together: pages, or milliseconds of sound. Without a name there is no limit."""

    name: str = ""
    most: int = 0


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job as submitted, before the store knows it."""

    id: str
    owner: str
    type: JobType
    params: Mapping[str, Any]
    inputs: tuple[Input, ...]
    priority: Priority = "normal"
    metadata: Mapping[str, str] = field(default_factory=dict)
    webhook_url: str = ""
    webhook_events: tuple[WebhookEvent, ...] = ()
    input_retention: Literal["until_expiry", "until_done"] = "until_expiry"
    cancel_after: int = 0
    expires_in: int = 86_400
    cache: bool = True
    window: int = 32
    share: Share = Share()
    traceparent: str = ""

    @property
    def queue(self) -> str:
        """The queue its parts wait in."""
        return infer_queue(modality(self.type, self.params), self.priority)

    def record(self) -> dict[str, str]:
        """List the fields of the record that never change."""
        return {
            "v": str(RECORD_VERSION),
            "type": self.type,
            "params": json.dumps(dict(self.params), ensure_ascii=False),
            "inputs": json.dumps([i.to_json() for i in self.inputs], ensure_ascii=False),
            "priority": self.priority,
            "metadata": json.dumps(dict(self.metadata), ensure_ascii=False),
            "webhook_url": self.webhook_url,
            "webhook_events": f" {' '.join(self.webhook_events)} ",
            "input_retention": self.input_retention,
            "cache": "1" if self.cache else "",
            "queue": self.queue,
            "window": str(self.window),
            "share": self.share.name,
            "share_most": str(self.share.most),
            "traceparent": self.traceparent,
        }


def trace_id(traceparent: str) -> str:
    """Take the trace id out of a W3C traceparent header, or ''."""
    pieces = traceparent.split("-")
    return pieces[1] if len(pieces) == 4 else ""


def infer_queue(modality: str, priority: str) -> str:
    """Name the queue of one adapter and one priority."""
    return f"infer.{modality}.{priority}"


#: Every queue with an engine behind it, most urgent first.
INFER_QUEUES = tuple(infer_queue(m, p) for p in PRIORITIES for m in ("vision", "speech", "text"))
SIDE_QUEUES = ("prepare", "webhooks")
QUEUES = SIDE_QUEUES + INFER_QUEUES


def run_folder(job_id: str, run: int) -> str:
    """Where what one run of a job needs is kept."""
    return f"{job_id}/run-{run}"


def input_blob(job_id: str, number: int) -> str:
    """Where one input of a job is kept."""
    return f"{job_id}/input-{number}"


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the store has it; times are Unix milliseconds of Redis' clock, 0 for "not yet"."""

    id: str
    owner: str
    type: JobType
    status: Status
    params: Mapping[str, Any]
    inputs: tuple[Input, ...]
    priority: Priority
    metadata: Mapping[str, str]
    queue: str
    share: str
    attempts: int
    created_ms: int
    retried_ms: int
    expires_ms: int
    preparing_ms: int
    prepared_ms: int
    started_ms: int
    ended_ms: int
    expected: int
    added: int
    done: int
    failed: int
    stop: str
    error: Mapping[str, Any] | None
    result: str
    usage: Mapping[str, float]
    webhook_url: str
    input_retention: str
    traceparent: str
    engine: str
    model: str
    cache: str  #: whether an earlier answer will do, and this one may be given again; '' for no
    cached_from: str  #: the job whose result this one was given, or ''

    @classmethod
    def from_record(cls, record: Mapping[str, str]) -> Job:
        """Read a record as the store keeps it; fields a tombstone lacks are empty."""
        number: dict[str, Any] = {n: int(record.get(n) or 0) for n in _NUMBERS}
        text: dict[str, Any] = {n: record.get(n, "") for n in _TEXTS}
        usage = {n.removeprefix("usage."): float(v) for n, v in record.items() if n.startswith("usage.")}
        return cls(
            id=record["id"],
            owner=record["owner"],
            type=cast(JobType, record["type"]),
            status=Status(record["status"]),
            params=json.loads(record.get("params") or "{}"),
            inputs=tuple(Input.from_json(i) for i in json.loads(record.get("inputs") or "[]")),
            priority=cast(Priority, record.get("priority", "normal")),
            metadata=json.loads(record.get("metadata") or "{}"),
            error=json.loads(record["error"]) if record.get("error") else None,
            usage=usage,
            **number,
            **text,
        )

    def log_context(self) -> dict[str, Any]:
        """Say what a log line may tell about this job: never its input, result or secrets."""
        return {"job": self.id, "type": self.type, "owner": self.owner, "trace": self.trace_id}

    @property
    def queued_ms(self) -> int:
        """When this run of the job was queued."""
        return self.retried_ms or self.created_ms

    @property
    def scratch(self) -> str:
        """The folder of what only this run of the job needs: runs never touch each other's."""
        return run_folder(self.id, self.attempts)

    @property
    def input_blobs(self) -> list[str]:
        """Where its inputs are, or were, or would have been once they were fetched."""
        return [input_blob(self.id, number) for number in range(len(self.inputs))]

    @property
    def trace_id(self) -> str:
        """The trace id the job came with, or ''."""
        return trace_id(self.traceparent)


_TEXTS = (
    "queue",
    "share",
    "stop",
    "result",
    "webhook_url",
    "input_retention",
    "traceparent",
    "engine",
    "model",
    "cache",
    "cached_from",
)
_NUMBERS = (
    "attempts",
    "created_ms",
    "retried_ms",
    "expires_ms",
    "preparing_ms",
    "prepared_ms",
    "started_ms",
    "ended_ms",
    "expected",
    "added",
    "done",
    "failed",
)


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of work a worker holds a lease on: `prepare`, `finish`, or the number of a part."""

    job: Job
    name: str
    token: str
    tries: int = 0
    suspect: bool = False
    spec: Mapping[str, Any] = field(default_factory=dict)
    waited_ms: int = 0  #: in its queue, by Redis' clock

    @property
    def is_part(self) -> bool:
        """Whether this is work for an engine."""
        return self.name not in ("prepare", "finish")

    @property
    def member(self) -> str:
        """Its name among the leases."""
        return f"{self.job.id}|{self.name}|{self.token}"

    def as_finish(self, token: str) -> Unit:
        """The finishing of the same job, for the worker that ended its last part."""
        return Unit(self.job, "finish", token)


@dataclass(frozen=True, slots=True)
class Part:
    """One part as the store has it."""

    number: int
    state: str
    spec: Mapping[str, Any]
    out: str
    error: Mapping[str, Any] | None
    tries: int
    ms: int
