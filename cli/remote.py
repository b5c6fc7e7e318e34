"""The jobs API of a running service, one method per route."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import quote

import httpx
from httpx_sse import EventSource

from cli.inputs import piped
from phi4 import __version__
from phi4.calls import shown_name

#: A job as the API shows it.
Job = dict[str, Any]

_CONNECT_S = 5.0
#: For one answer, and for one piece of an upload; a long-poll gets its wait on top.
_ANSWER_S = 60.0
_RETRY_AFTER_S = 1.0
#: A key's requests are counted over a minute.
_MOST_RETRY_AFTER_S = 60.0


class RemoteError(Exception):
    """The service did not do what was asked; `code` is stable, `message` a sentence."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(message)


class Unreachable(RemoteError):
    """No service answers at the address."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(
            "unreachable",
            f"No service answers at {address} ({reason}): start one with `phi4 up`, or set PHI4_URL to where it runs.",
        )


class BrokenOff(RemoteError):
    """The connection ended before the answer; a server that is sent too large a file may do that."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            "connection_broken",
            f"The service broke off the connection ({reason}); it does so with files above its PHI4_MAX_BODY_MB.",
        )


class Refused(RemoteError):
    """The service answered with an error; `retry_after` is in seconds."""

    def __init__(self, code: str, message: str, *, status: int, retry_after: float = _RETRY_AFTER_S) -> None:
        super().__init__(code, message)
        self.status = status
        self.retry_after = retry_after


class Remote:
    """A client of one service.

    Every method raises `Unreachable` when nobody is there, `BrokenOff` when the answer does not come, and `Refused`
    when it is an error.
    """

    def __init__(self, url: str) -> None:
        address = _address(url)
        #: Whether there was any answer yet.
        self.has_answered = False
        self._address = str(address.copy_with(userinfo=b""))
        self._client = httpx.AsyncClient(
            base_url=address,
            headers={"User-Agent": f"phi4/{__version__}"} | _authorization(),
            timeout=httpx.Timeout(_ANSWER_S, connect=_CONNECT_S, pool=None),
            # A proxy set for the outside world cannot reach this machine's own loopback.
            trust_env=not _is_loopback(address.host),
        )

    async def __aenter__(self) -> Remote:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def submit(
        self,
        job_type: str,
        files: Sequence[Path],
        params: Mapping[str, Any],
        *,
        idempotency_key: str,
        webhook_url: str = "",
    ) -> Job:
        """Send files as one job. Raises `OSError` when one of them cannot be read."""
        fields = {"type": job_type, "params": json.dumps(dict(params))}
        with contextlib.ExitStack() as opened:
            parts = [("file", (shown_name(path), _content(path, opened))) for path in files]
            response = await self._request(
                "POST",
                "/v1/jobs",
                data=fields | ({"webhook_url": webhook_url} if webhook_url else {}),
                files=parts,
                headers={"Idempotency-Key": idempotency_key},
            )
        return self._job(response)

    async def show(self, job_id: str, *, wait: int = 0) -> Job:
        """Read a job; with `wait`, in seconds, as soon as its status changes."""
        timeout = httpx.Timeout(_ANSWER_S + wait, connect=_CONNECT_S, pool=None)
        params = {"wait": wait} if wait else {}
        return self._job(await self._request("GET", _path(job_id), params=params, timeout=timeout))

    async def result(self, job_id: str, wanted: str) -> str:
        """Read the result of a job that completed, in the format wanted."""
        return (await self._request("GET", _path(job_id, "result"), params={"format": wanted})).text

    async def newest(self, **filters: str | int) -> list[Job]:
        """List jobs, newest first; filters are those of the API: `status`, `type`, `limit`, `owner`."""
        response = await self._request("GET", "/v1/jobs", params={k: v for k, v in filters.items() if v})
        return cast(list[Job], self._object(response, "data")["data"])

    async def events(self, job_id: str, after: int) -> AsyncIterator[tuple[int, str, dict[str, Any]]]:
        """Follow a job's events (number, name, data) from after one on; ends with the stream, also when it breaks."""
        timeout = httpx.Timeout(_ANSWER_S, connect=_CONNECT_S, pool=None)
        try:
            async with self._client.stream(
                "GET", _path(job_id, "events"), params={"after": after}, timeout=timeout
            ) as response:
                self.has_answered = True
                if not response.is_success:
                    await response.aread()
                    raise self._refusal(response)
                async for event in EventSource(response).aiter_sse():
                    yield int(event.id or 0), event.event, event.json()
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unreachable(self._address, str(error) or type(error).__name__) from None
        except httpx.TransportError as error:
            raise BrokenOff(str(error) or type(error).__name__) from None

    async def cancel(self, job_id: str) -> Job:
        """Ask a job to stop; a job that ended stays as it is."""
        return self._job(await self._request("POST", _path(job_id, "cancel")))

    async def retry(self, job_id: str) -> Job:
        """Run a job again."""
        return self._job(await self._request("POST", _path(job_id, "retry")))

    async def delete(self, job_id: str) -> dict[str, Any]:
        """Erase a job; gives the service's word for it."""
        return self._object(await self._request("DELETE", _path(job_id)), "deleted")

    async def deliveries(self, job_id: str) -> list[dict[str, Any]]:
        """List a job's webhooks with their tries, the newest event first."""
        response = await self._request("GET", _path(job_id, "deliveries"))
        return cast(list[dict[str, Any]], self._object(response, "data")["data"])

    async def replay(self, job_id: str, event: str) -> dict[str, Any]:
        """Send a webhook of a job again; gives its delivery as it then is."""
        response = await self._request("POST", _path(job_id, "deliveries", quote(event, safe=""), "replay"))
        return self._object(response, "id")

    async def _request(self, method: str, path: str, **more: Any) -> httpx.Response:
        try:
            response = await self._client.request(method, path, **more)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unreachable(self._address, str(error) or type(error).__name__) from None
        except httpx.TransportError as error:
            raise BrokenOff(str(error) or type(error).__name__) from None
        self.has_answered = True
        if not response.is_success:
            raise self._refusal(response)
        return response

    def _refusal(self, response: httpx.Response) -> Refused:
        problem = _fields(response)
        if "code" not in problem:
            return self._stranger(response)
        message = _sentence(problem)
        if response.status_code == 401:
            message = "The service asks for a key: set PHI4_API_KEY to one that is valid."
        return Refused(str(problem["code"]), message, status=response.status_code, retry_after=_retry_after(response))

    def _job(self, response: httpx.Response) -> Job:
        return self._object(response, "id")

    def _object(self, response: httpx.Response, member: str) -> dict[str, Any]:
        fields = _fields(response)
        if member not in fields:
            raise self._stranger(response)
        return fields

    def _stranger(self, response: httpx.Response) -> Refused:
        """Speak of an answer that is not of this API: another program's, or a gateway's in between."""
        status = response.status_code
        message = (
            f"{self._address} answered {status} {response.reason_phrase}, and not as phi4 does; is it the address?"
        )
        return Refused(f"http_{status}", message, status=status, retry_after=_retry_after(response))


def _content(path: Path, opened: contextlib.ExitStack) -> BinaryIO | bytes:
    """Open a file to be streamed; what has no size yet, such as a pipe, is read whole."""
    return opened.enter_context(path.open("rb")) if path.is_file() else piped(path)


def _path(job_id: str, *more: str) -> str:
    return "/".join(("/v1/jobs", quote(job_id, safe="", errors="replace"), *more))


def _fields(response: httpx.Response) -> dict[str, Any]:
    try:
        fields = response.json()
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _sentence(problem: Mapping[str, Any]) -> str:
    """Say what is wrong; with several wrong fields, all of them."""
    wrong = [f"{e.get('field')}: {e.get('message')}" for e in problem.get("errors") or [] if isinstance(e, dict)]
    return "; ".join(wrong) if len(wrong) > 1 else str(problem.get("detail") or problem.get("title") or "")


def _retry_after(response: httpx.Response) -> float:
    seconds = response.headers.get("Retry-After", "")
    return min(float(seconds), _MOST_RETRY_AFTER_S) if seconds.isdecimal() else _RETRY_AFTER_S


def _address(url: str) -> httpx.URL:
    try:
        address = httpx.URL(url)
        _ = address.host  # read only now
    except (httpx.InvalidURL, UnicodeError):
        raise RemoteError("wrong_url", f"{url!r} is no address of a service (from --url or PHI4_URL).") from None
    return address


def _authorization() -> dict[str, str]:
    key = os.environ.get("PHI4_API_KEY", "").strip()
    if not (key.isascii() and key.isprintable()):
        raise RemoteError("wrong_key", "PHI4_API_KEY holds characters that no key has.")
    return {"Authorization": f"Bearer {key}"} if key else {}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
