"""`phi4 jobs watch`: shows the events of a job until it ends, across short absences of the service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from cli import show
from cli.remote import BrokenOff, Refused, Remote, Unreachable

#: A service that is being restarted is back within this many seconds.
_PATIENCE_S = 30.0
_PAUSE_S = 1.0
_BRIEFLY_AWAY = (429, 502, 503, 504)


async def watch(remote: Remote, job_id: str, *, as_json: bool) -> int:
    """Show events until the last; returns the exit code: 0, or 1 when the job did not complete.

    Raises `Refused` for a job that is not there, `Unreachable` and `BrokenOff` when the service stays away.
    """
    lines, last, heard = _Lines(), 0, time.monotonic()
    while True:
        try:
            async for number, name, data in remote.events(job_id, last):
                last, heard = number or last, time.monotonic()
                if as_json:
                    show.write_json({"id": number, "event": name, "data": data})
                else:
                    lines.show(name, data)
                if name in ("result", "error"):
                    return 0 if name == "result" else 1
        except (Refused, Unreachable, BrokenOff) as error:
            gone = isinstance(error, Refused) and error.status not in _BRIEFLY_AWAY
            if gone or time.monotonic() - heard > _PATIENCE_S or not remote.has_answered:
                raise
        await asyncio.sleep(_PAUSE_S)


class _Lines:
    """Events for people: a line each, and text that goes on where it was."""

    def __init__(self) -> None:
        self._part: int | None = None

    def show(self, name: str, data: Mapping[str, Any]) -> None:
        """Say an event; the result is for `phi4 jobs result`."""
        if name == "delta":
            goes_on = data["part"] == self._part and data["offset"]
            head = "" if goes_on else f"{self._end()}part {data['part']}: "
            self._part = data["part"]
            show.write(head + data["text"])
        elif name != "result":
            show.write(f"{self._end()}{_words(name, data)}\n")

    def _end(self) -> str:
        """End the line of a text, if there is one."""
        within, self._part = self._part is not None, None
        return "\n" if within else ""


def _words(name: str, data: Mapping[str, Any]) -> str:
    match name:
        case "status":
            return str(data["status"]).replace("_", " ")
        case "progress":
            return show.counted(data) or str(data["completed"])
        case "error":
            return f"{data['error']['message']} ({data['error']['code']})"
    return name
