"""Options that several commands have, and how a command asks a service."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar
from urllib.parse import urlsplit

import typer

from cli.errors import plain_errors

if TYPE_CHECKING:
    from cli.remote import Remote

T = TypeVar("T")


def _http_url(value: str) -> str:
    url = value or f"http://127.0.0.1:{os.environ.get('PORT') or 8000}"
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        valid = False
    if not valid:
        raise typer.BadParameter(f"{url!r} is not an http or https URL (from --url, PHI4_URL or PORT).")
    return url


Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="PHI4_URL",
        callback=_http_url,
        help="Where the service is; it is sent the key in PHI4_API_KEY.  [default: http://127.0.0.1:$PORT, port 8000]",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object for each job, on stdout.")]


def call(url: str, ask: Callable[[Remote], Awaitable[T]]) -> T:
    """Ask a service one thing; what goes wrong ends the command with a sentence."""
    import asyncio

    from cli.remote import Remote

    async def asked() -> T:
        async with Remote(url) as remote:
            return await ask(remote)

    with plain_errors():
        return asyncio.run(asked())
