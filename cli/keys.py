"""The `phi4 keys` commands: make, list and revoke bearer keys; show and rotate owners' webhook secrets."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import plain_errors

if TYPE_CHECKING:
    from phi4.settings import Settings
    from phi4.store import Access, ApiKey

app = typer.Typer(
    help="Say who may use the service.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)
_START_S = 60.0
_LIMITS = ("requests_per_minute", "in_flight_pages", "in_flight_seconds")


def _owner_name(value: str | None) -> str | None:
    from phi4.store.access import OWNER_NAME

    if value is not None and not OWNER_NAME.fullmatch(value):
        raise typer.BadParameter("at most 64 letters, digits, dots, dashes and underscores, a letter or digit first.")
    return value


_Name = Annotated[str, typer.Argument(metavar="NAME", callback=_owner_name, show_default=False)]
_Owner = Annotated[str, typer.Argument(metavar="OWNER", callback=_owner_name, show_default=False)]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object for each key, on stdout.")]
_JsonOne = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


@app.command()
def create(
    name: _Name,
    owner: Annotated[
        str | None,
        typer.Option(callback=_owner_name, help="Whose jobs it makes and sees.  [default: NAME]", show_default=False),
    ] = None,
    admin: Annotated[bool, typer.Option("--admin", help="Lets it see, cancel and delete everybody's jobs.")] = False,
    requests_per_minute: Annotated[int, typer.Option(min=0, max=1_000_000, help="0: no limit.")] = 0,
    in_flight_pages: Annotated[
        int, typer.Option(min=0, help="Pages that wait for an engine or are read at once; more wait their turn.")
    ] = 0,
    in_flight_seconds: Annotated[int, typer.Option(min=0, help="Seconds of sound, likewise.")] = 0,
    as_json: _JsonOne = False,
) -> None:
    """Make a key, and show it this once. The first one closes the service to all who have none."""
    from cli import show

    limits = dict(zip(_LIMITS, (requests_per_minute, in_flight_pages, in_flight_seconds), strict=True))
    with plain_errors(), _access() as access:
        token, made = access.create(name, owner or name, admin=admin, **limits)
    if as_json:
        show.write_json(_shown(made) | {"key": token})
        return
    show.write(f"{token}\n")
    show.say(f"This is the key {made.id} of {made.owner}. Keep it: it is not shown again. It works within 2 s.")


@app.command("list")
def list_keys(as_json: _Json = False) -> None:
    """List the keys, revoked ones too."""
    from cli import show

    with plain_errors(), _access() as access:
        keys = list(access.keys().values())
    if as_json:
        for one in keys:
            show.write_json(_shown(one))
        return
    headers = ("ID", "NAME", "OWNER", "MAY", "LIMITS", "MADE", "REVOKED")
    show.table(headers, [_row(one) for one in keys])


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID", show_default=False)], as_json: _JsonOne = False) -> None:
    """Revoke a key; it is refused within 2 s. Its owner's jobs stay."""
    from cli import show

    with plain_errors(), _access() as access:
        known = access.revoke(key_id)
    if not known:
        show.complain(f"There is no key {key_id!r}; `phi4 keys list` shows their ids.")
        raise typer.Exit(1)
    if as_json:
        show.write_json({"id": key_id, "revoked": True})
        return
    show.say(f"{key_id} is revoked.")


@app.command("webhook-secret")
def webhook_secret(
    owner: _Owner,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Make a new one; the old one signs beside it for a day.")
    ] = False,
    as_json: _JsonOne = False,
) -> None:
    """Show the secret that signs an owner's webhooks. It is made when there is none."""
    from cli import show
    from phi4.store import LOCAL

    if owner == LOCAL:
        show.complain("The webhooks of `local` are signed with PHI4_WEBHOOK_SECRET, or else <data>/webhook-secret.")
        raise typer.Exit(2)
    with plain_errors(), _access() as access:
        if all(one.owner != owner for one in access.keys().values()):
            show.complain(f"No key belongs to {owner!r}; `phi4 keys list` shows whose there are.")
        secret = access.rotate_webhook_secret(owner) if rotate else access.webhook_secret(owner)
    if as_json:
        show.write_json({"owner": owner, "secret": secret})
        return
    show.write(f"{secret}\n")


@contextmanager
def _access() -> Iterator[Access]:
    """Reach the keys: in the caller's Redis, or in the embedded one, whether the service runs or not."""
    from phi4.settings import load
    from phi4.store import Store

    settings = load()
    with _redis_url(settings) as url:
        store = Store.at(url, allow_evicting=settings.allow_evicting_redis)
        try:
            yield store.access
        finally:
            store.client.close()


@contextmanager
def _redis_url(settings: Settings) -> Iterator[str]:
    from cli import show
    from cli.embedded import AlreadyRunning, EmbeddedValkey, url_of_running

    folder = settings.data_dir / "valkey"
    if "redis_url" in settings.model_fields_set:
        yield settings.redis_url
        return
    if not folder.exists():
        show.say(f"No service has run in {settings.data_dir.resolve()} yet: keys made here are for one that will.")
    try:
        valkey = EmbeddedValkey(folder)
    except AlreadyRunning:
        yield url_of_running(folder)
        return
    with valkey, _running(valkey.child().argv, folder):
        ends = time.monotonic() + _START_S
        while not valkey.answers() and time.monotonic() < ends:
            time.sleep(0.02)
        yield valkey.url


@contextmanager
def _running(argv: tuple[str, ...], folder: Path) -> Iterator[None]:
    with (folder / "valkey.log").open("ab") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        yield
    finally:
        # It writes what it was told to disk before it ends.
        process.terminate()
        process.wait()


def _shown(key: ApiKey) -> dict[str, Any]:
    seconds = {"created_at": key.created_ms // 1000, "revoked_at": key.revoked_ms // 1000 or None}
    limits = {name: getattr(key, name) or None for name in _LIMITS}
    return {"id": key.id, "name": key.name, "owner": key.owner, "admin": key.admin, **limits, **seconds}


def _row(key: ApiKey) -> tuple[str, ...]:
    limits = (
        (key.requests_per_minute, "requests/min"),
        (key.in_flight_pages, "pages"),
        (key.in_flight_seconds, "s of sound"),
    )
    told = ", ".join(f"{most} {what}" for most, what in limits if most)
    return (
        key.id,
        key.name,
        key.owner,
        "everything" if key.admin else "its own",
        told or "none",
        _when(key.created_ms),
        _when(key.revoked_ms),
    )


def _when(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds // 1000, UTC):%Y-%m-%d %H:%M}" if milliseconds else ""
