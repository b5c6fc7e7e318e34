"""Delivers webhooks: what is sent, how it is signed, when it is tried again, and when it is given up."""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from standardwebhooks import Webhook

from phi4.blobs import Blobs
from phi4.errors import BlobMissing, InputError, Phi4Error
from phi4.job import Job, Status
from phi4.log import log
from phi4.store import LOCAL, Hook, Store
from phi4.store.hooks import HookOutcome
from phi4.tracing import OFF, Tracing
from worker import metrics
from worker.outgoing import Outgoing

_log = logging.getLogger(__name__)

#: Seconds to wait after each failed try, plus up to a fifth at random: given up after 26 to 31 hours.
_WAITS = (5, 30, 300, 1_800, 7_200, 18_000, 28_800, 36_000)
#: A result is sent along when the whole body stays under this (Standard Webhooks advises 20 kB).
_INLINE_BYTES = 20_000
_POLL_S = 1.0
_MOST_AT_ONCE = 32
#: Of one owner, in all workers together: however many of its receivers hang, others have the rest. Not less than half:
#: its other receivers need places too, and where there are no keys all jobs are of one owner.
_MOST_OF_ONE_OWNER = _MOST_AT_ONCE // 2


class Webhooks:
    """Takes due deliveries from the store and posts them, many at once, so that a slow receiver holds up no other."""

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        outgoing: Outgoing,
        *,
        secrets: Sequence[str],
        seconds: float,
        per_host: int,
        tracing: Tracing = OFF,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._outgoing = outgoing
        self._secrets_of_local = secrets
        self._seconds = seconds
        self._per_host = per_host
        self._per_owner = max(_MOST_OF_ONE_OWNER, per_host)  # an operator may allow one receiver more
        self._tracing = tracing
        self._wake = threading.Event()
        self._end = threading.Event()
        self._free = threading.Semaphore(_MOST_AT_ONCE)
        self._pool = ThreadPoolExecutor(_MOST_AT_ONCE, thread_name_prefix="webhook")
        self._thread = threading.Thread(target=self._deliver_for_ever, name="webhooks", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def wake(self) -> None:
        """Look at once whether something is due."""
        self._wake.set()

    def stop(self) -> None:
        """Finish the deliveries under way; what is due later waits in the store."""
        self._end.set()
        self._wake.set()
        self._thread.join(timeout=self._seconds)
        self._pool.shutdown(wait=True)

    def _deliver_for_ever(self) -> None:
        while not self._end.is_set():
            self._wake.wait(_POLL_S)
            self._wake.clear()
            try:
                self._deliver_due()
            except Phi4Error as error:
                log(_log, "webhooks wait", level=logging.WARNING, error=error.message)
                self._end.wait(_POLL_S)
            except Exception:
                # Without this thread no webhook would ever be sent again.
                _log.exception("webhooks wait")
                self._end.wait(_POLL_S)

    def _deliver_due(self) -> None:
        while not self._end.is_set():
            self._free.acquire()
            hook = None
            try:
                # Twice the longest a try may take: a delivery whose worker died is due again after that.
                lease_ms = int(self._seconds * 2_000) + 20_000
                hook = self._store.hooks.take(lease_ms, per_host=self._per_host, per_owner=self._per_owner)
            finally:
                if hook is None:
                    self._free.release()
            if hook is None:
                return
            self._pool.submit(self._deliver, hook)

    def _deliver(self, hook: Hook) -> None:
        try:
            began = time.monotonic()
            outcome, answer = self._try(hook)
            took_ms = int((time.monotonic() - began) * 1_000)
            wait_ms = _wait_ms(hook.tries)
            if outcome == "retry" and wait_ms is None:
                outcome = "given_up"
            self._store.hooks.tried(hook, outcome, answer, wait_ms=wait_ms or 0, took_ms=took_ms)
            metrics.WEBHOOKS.labels(outcome).inc()
            log(_log, "webhook", job=hook.job_id, name=hook.event, outcome=outcome, answer=answer, tries=hook.tries + 1)
        except Phi4Error as error:
            # The delivery stays in the store and is due again when its lease ends.
            log(_log, "webhook waits", level=logging.WARNING, job=hook.job_id, error=error.message)
        finally:
            self._free.release()
            self._wake.set()  # its receiver may take the next one now

    def _try(self, hook: Hook) -> tuple[HookOutcome, str]:
        """As `post`; a fault of this service counts as a try too, or it would be met again for ever."""
        try:
            return self.post(hook)
        except Phi4Error:
            raise
        except Exception:
            _log.exception("webhook failed", extra={"phi4_fields": {"job": hook.job_id}})
            return "retry", "an error in this service"

    def post(self, hook: Hook) -> tuple[HookOutcome, str]:
        """Send one delivery; returns what it came to, and the receiver's status or what went wrong."""
        job = self._store.jobs.find(hook.job_id)
        if job is None:
            return "given_up", "the job was deleted"
        if not (secrets := self._secrets(job.owner)):
            return "given_up", "its owner has no webhook secret"
        body = _body(self.envelope(hook, job))
        headers = sign(secrets, hook.id, body.decode(), at_ms=self._store.now_ms())
        headers["Content-Type"] = "application/json"
        about = {"phi4.job": job.id, "phi4.event": hook.event, "http.request.method": "POST"}
        with self._tracing.step("webhook", above=job.traceparent, kind="client", attributes=about) as span:
            outcome, answer = self._send(hook.url, body, headers, span.traceparent)
            span.note(phi4__outcome=outcome, phi4__answer=answer)
            if outcome != "delivered":
                span.fail(answer)
        return outcome, answer

    def _send(self, url: str, body: bytes, headers: dict[str, str], traceparent: str) -> tuple[HookOutcome, str]:
        if traceparent:
            headers = headers | {"traceparent": traceparent}
        try:
            with self._outgoing.request("POST", url, seconds=self._seconds, data=body, headers=headers) as response:
                return _outcome(response.status_code), str(response.status_code)
        except InputError as error:
            return "retry", error.message

    def _secrets(self, owner: str) -> Sequence[str]:
        """What signs an owner's webhooks: never another's secret, with which that one could be deceived."""
        if owner == LOCAL:
            return self._secrets_of_local
        return self._store.access.webhook_secrets(owner)

    def envelope(self, hook: Hook, job: Job) -> dict[str, Any]:
        """Build the body: the event, and the job with its result when that is small."""
        about: dict[str, Any] = {
            "id": job.id,
            "type": job.type,
            "status": "in_progress" if hook.event == "job.started" else hook.event.removeprefix("job."),
            "metadata": dict(job.metadata),
        }
        if error := _error(hook, job):
            about["error"] = error
        envelope = {"id": hook.id, "event": hook.event, "created_at": hook.event_ms // 1000, "job": about}
        if job.status == Status.COMPLETED and hook.event == "job.completed":
            self._inline_result(envelope, job.result)
        return envelope

    def _inline_result(self, envelope: dict[str, Any], key: str) -> None:
        try:
            result = self._blobs.get(key)
        except BlobMissing:
            return
        if len(result) < _INLINE_BYTES:
            whole = envelope | {"job": envelope["job"] | {"result": json.loads(result)}}
            if len(_body(whole)) < _INLINE_BYTES:
                envelope |= whole


def _error(hook: Hook, job: Job) -> dict[str, Any] | None:
    """The job's error when the event happened; of an older version's event only the present one is known."""
    if hook.error is None:
        return dict(job.error) if job.error else None
    return dict(json.loads(hook.error)) if hook.error else None


def _body(envelope: dict[str, Any]) -> bytes:
    return json.dumps(envelope, ensure_ascii=False).encode()


def sign(secrets: Sequence[str], message_id: str, body: str, *, at_ms: int) -> dict[str, str]:
    """Make the Standard Webhooks headers for a body; a signature for each secret."""
    moment = datetime.fromtimestamp(at_ms // 1000, UTC)  # the library signs UTC times only
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": " ".join(Webhook(s).sign(msg_id=message_id, timestamp=moment, data=body) for s in secrets),
    }


def _outcome(status: int) -> HookOutcome:
    if 200 <= status < 300:
        return "delivered"
    return "gone" if status == 410 else "retry"


def _wait_ms(tries: int) -> int | None:
    if tries >= len(_WAITS):
        return None
    return int(_WAITS[tries] * 1000 * random.uniform(1.0, 1.2))
