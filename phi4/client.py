"""The Python client of the jobs API, for synchronous and asynchronous programs: `Client` and `AsyncClient`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import httpx
from httpx_sse import EventSource

from phi4 import calls
from phi4.answers import RESULTS, Answer, Job, OcrResult, Result, Transcript
from phi4.calls import File, JobFailed, Phi4ApiError

__all__ = ["AsyncClient", "Client", "File", "JobFailed", "Phi4ApiError", "verify_webhook"]

T = TypeVar("T")
#: What goes wrong with one file of a batch.
_WRONG = (Phi4ApiError, JobFailed, OSError, httpx.HTTPError)


class _Settings:
    """What both clients are told."""

    def __init__(self, base_url: str, api_key: str, tries: int, timeout: float) -> None:
        self._tries = tries
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        # Longer than the service holds a request that waits for a job's end.
        self._options: dict[str, Any] = {"base_url": base_url, "headers": headers, "timeout": timeout}


class Client(_Settings):
    """`with Client("http://127.0.0.1:8000") as phi4: phi4.ocr("invoice.pdf").text`.

    Methods raise `Phi4ApiError` (refused), `JobFailed` (no result), `TimeoutError`, and `httpx.TransportError` when the
    service stays away for all tries. Params are those of the job's type; other fields of a job go into `submit`.
    """

    def __init__(
        self, base_url: str = "http://127.0.0.1:8000", api_key: str = "", *, tries: int = 5, timeout: float = 60
    ) -> None:
        super().__init__(base_url, api_key, tries, timeout)
        self._http = httpx.Client(**self._options)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ocr(self, *files: File, timeout: float | None = None, **params: Any) -> OcrResult:
        """Read pages."""
        return self._run(calls.result(OcrResult.of, "ocr", files, params, timeout, self._tries))

    def ask(self, question: str, *files: File, timeout: float | None = None, **params: Any) -> Answer:
        """Ask one question over all files."""
        asked = params | {"question": question}
        return self._run(calls.result(Answer.of, "vqa", files, asked, timeout, self._tries))

    def transcribe(self, file: File, *, timeout: float | None = None, **params: Any) -> Transcript:
        """Write down a recording."""
        return self._run(calls.result(Transcript.of, "asr", [file], params, timeout, self._tries))

    def submit(self, job_type: str, *files: File, params: Mapping[str, Any] | None = None, **fields: Any) -> Job:
        """Make a job and return at once; `fields` are `metadata`, `priority`, `webhook_url`, `idempotency_key`, …"""
        return self._run(calls.submit(job_type, files, params or {}, fields, self._tries))

    def get(self, job_id: str) -> Job:
        """Look at a job."""
        return self._run(calls.get(job_id, self._tries))

    def wait(self, job_id: str, *, timeout: float | None = None) -> Job:
        """Wait for a job's end, however it ends."""
        return self._run(calls.wait(job_id, timeout, self._tries))

    def cancel(self, job_id: str) -> None:
        """Stop a job."""
        self._run(calls.act("POST", f"/v1/jobs/{job_id}/cancel", self._tries))

    def delete(self, job_id: str) -> None:
        """Erase a job."""
        self._run(calls.act("DELETE", f"/v1/jobs/{job_id}", self._tries))

    def stream(self, job_id: str) -> Iterator[dict[str, Any]]:
        """Follow a job: each event as a dictionary with its name as `event`, up to `result` or `error`.

        Resumes when the connection ends before.
        """
        following = calls.Following(job_id, self._tries)
        while True:
            try:
                with self._http.stream("GET", following.path, headers=following.headers) as response:
                    if response.status_code == httpx.codes.NO_CONTENT:  # all that there is has come
                        return
                    if response.is_error:
                        response.read()
                        raise Phi4ApiError(response)
                    for event in EventSource(response).iter_sse():
                        yield following.take(event)
                        if following.over:
                            return
                raise calls.cut_off()
            except (httpx.TransportError, Phi4ApiError) as error:
                time.sleep(following.pause(error))

    def batch(
        self, job_type: str, files: Iterable[File], *, in_flight: int = 8, **params: Any
    ) -> Iterator[tuple[File, Result | Exception]]:
        """One job a file, several at once: yields each file, in order, with its result or what went wrong."""

        def one(file: File) -> Result | Exception:
            try:
                return self._run(calls.result(RESULTS[job_type], job_type, [file], params, None, self._tries))
            except _WRONG as error:
                return error

        listed, pool = list(files), ThreadPoolExecutor(in_flight)
        try:
            yield from zip(listed, pool.map(one, listed), strict=True)
        finally:
            pool.shutdown(cancel_futures=True)  # a caller who stops listening does not wait for the rest

    def _run(self, plan: calls.Plan[T]) -> T:
        came: Any = None
        while True:
            try:
                step = plan.send(came)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]  # the plan's own
            if isinstance(step, calls.Sleep):
                time.sleep(step.seconds)
                continue
            try:
                came = self._http.request(step.method, step.path, **step.options)
            except httpx.TransportError as error:
                came = error


class AsyncClient(_Settings):
    """As `Client`, with `async with` and `await`."""

    def __init__(
        self, base_url: str = "http://127.0.0.1:8000", api_key: str = "", *, tries: int = 5, timeout: float = 60
    ) -> None:
        super().__init__(base_url, api_key, tries, timeout)
        self._http = httpx.AsyncClient(**self._options)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ocr(self, *files: File, timeout: float | None = None, **params: Any) -> OcrResult:
        """Read pages."""
        return await self._run(calls.result(OcrResult.of, "ocr", files, params, timeout, self._tries))

    async def ask(self, question: str, *files: File, timeout: float | None = None, **params: Any) -> Answer:
        """Ask one question over all files."""
        asked = params | {"question": question}
        return await self._run(calls.result(Answer.of, "vqa", files, asked, timeout, self._tries))

    async def transcribe(self, file: File, *, timeout: float | None = None, **params: Any) -> Transcript:
        """Write down a recording."""
        return await self._run(calls.result(Transcript.of, "asr", [file], params, timeout, self._tries))

    async def submit(self, job_type: str, *files: File, params: Mapping[str, Any] | None = None, **fields: Any) -> Job:
        """Make a job and return at once."""
        return await self._run(calls.submit(job_type, files, params or {}, fields, self._tries))

    async def get(self, job_id: str) -> Job:
        """Look at a job."""
        return await self._run(calls.get(job_id, self._tries))

    async def wait(self, job_id: str, *, timeout: float | None = None) -> Job:
        """Wait for a job's end, however it ends."""
        return await self._run(calls.wait(job_id, timeout, self._tries))

    async def cancel(self, job_id: str) -> None:
        """Stop a job."""
        await self._run(calls.act("POST", f"/v1/jobs/{job_id}/cancel", self._tries))

    async def delete(self, job_id: str) -> None:
        """Erase a job."""
        await self._run(calls.act("DELETE", f"/v1/jobs/{job_id}", self._tries))

    async def stream(self, job_id: str) -> AsyncIterator[dict[str, Any]]:
        """Follow a job, as `Client.stream` does."""
        following = calls.Following(job_id, self._tries)
        while True:
            try:
                async with self._http.stream("GET", following.path, headers=following.headers) as response:
                    if response.status_code == httpx.codes.NO_CONTENT:  # all that there is has come
                        return
                    if response.is_error:
                        await response.aread()
                        raise Phi4ApiError(response)
                    async for event in EventSource(response).aiter_sse():
                        yield following.take(event)
                        if following.over:
                            return
                raise calls.cut_off()
            except (httpx.TransportError, Phi4ApiError) as error:
                await asyncio.sleep(following.pause(error))

    async def batch(
        self, job_type: str, files: Iterable[File], *, in_flight: int = 8, **params: Any
    ) -> AsyncGenerator[tuple[File, Result | Exception], None]:
        """One job a file, as `Client.batch` does."""
        places = asyncio.Semaphore(in_flight)

        async def one(file: File) -> Result | Exception:
            async with places:
                try:
                    plan = calls.result(RESULTS[job_type], job_type, [file], params, None, self._tries)
                    return await self._run(plan)
                except _WRONG as error:
                    return error

        running = [(file, asyncio.create_task(one(file))) for file in files]
        try:
            for file, task in running:
                yield file, await task
        finally:
            for _, task in running:
                task.cancel()

    async def _run(self, plan: calls.Plan[T]) -> T:
        came: Any = None
        while True:
            try:
                step = plan.send(came)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]  # the plan's own
            if isinstance(step, calls.Sleep):
                await asyncio.sleep(step.seconds)
                continue
            try:
                came = await self._http.request(step.method, step.path, **step.options)
            except httpx.TransportError as error:
                came = error


def verify_webhook(body: bytes | str, headers: Mapping[str, str], secret: str, *others: str) -> dict[str, Any]:
    """Check a webhook's signature, by any of the secrets (two while one is replaced), and its age, and return its JSON.

    Raises `standardwebhooks.WebhookVerificationError`.
    """
    from standardwebhooks import Webhook, WebhookVerificationError

    lower = {name.lower(): value for name, value in headers.items()}
    for other in others:
        with suppress(WebhookVerificationError):
            return dict(Webhook(other).verify(body, lower))
    return dict(Webhook(secret).verify(body, lower))
