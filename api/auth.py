"""Who is calling: the owner behind a bearer key, or the one owner of a service that has no keys."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from flask import Flask, current_app, g, request

from phi4.errors import Forbidden, Unauthorized, Unprotected
from phi4.job import Share
from phi4.log import log
from phi4.params import JobType
from phi4.settings import LOOPBACK, Settings
from phi4.store import LOCAL, Access, ApiKey
from phi4.store.access import find

_log = logging.getLogger(__name__)
_View = TypeVar("_View")
#: A key that was revoked, or made, is known as that in every process within so many seconds.
_REMEMBER_S = 1.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request: an owner, and the key that says so unless the service has none."""

    owner: str
    key: ApiKey | None = None

    @property
    def sees(self) -> str | None:
        """Whose jobs this caller may touch; None for everybody's."""
        return None if self.key and self.key.admin else self.owner

    def share(self, job_type: JobType) -> Share:
        """What this caller's jobs of a type may have in flight together."""
        return self.key.share(job_type) if self.key else Share()


class Auth:
    """Knows the keys, as they were a moment ago.

    Raises `Unprotected` when strangers could reach a service without keys.
    """

    def __init__(self, settings: Settings, access: Access) -> None:
        self._settings = settings
        self._access = access
        self._keys: Mapping[str, ApiKey] = access.keys()
        self._read_at = time.monotonic()
        if not self._keys and not settings.is_open:
            name, address = ("PHI4_PUBLISH", settings.publish) if settings.publish else ("PHI4_HOST", settings.host)
            raise Unprotected(
                f"{name}={address!r}: without keys anyone who reaches this address could use the service. "
                "Make one with `phi4 keys create NAME`, keep 127.0.0.1, or set PHI4_ALLOW_ANONYMOUS=1 to allow that."
            )

    def caller(self) -> Caller:
        """Find out who makes this request. Raises `Unauthorized`, `Forbidden`, `StoreUnavailable`."""
        keys = self._current()
        if not keys and self._settings.is_open:
            self._check_page()
            return Caller(LOCAL)
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        key = find(keys, token.strip()) if scheme.lower() == "bearer" else None
        if key is None:
            # Whether a key is unknown, wrong or revoked is for the log's reader to find out, not for its holder.
            log(_log, "refused", level=logging.WARNING, client=request.remote_addr, path=request.path)
            raise Unauthorized
        return Caller(key.owner, key)

    def _current(self) -> Mapping[str, ApiKey]:
        if time.monotonic() - self._read_at > _REMEMBER_S:
            self._keys = self._access.keys()
            self._read_at = time.monotonic()
        return self._keys

    def _check_page(self) -> None:
        """Refuse what a stranger's web page makes a browser on this machine send to a service without keys."""
        settings = self._settings
        name = urlsplit(f"//{request.host}").hostname or ""
        if not settings.allow_anonymous and name not in LOOPBACK:
            raise Forbidden(f"Without keys this service answers to {', '.join(LOOPBACK)} only, not to {name[:100]!r}.")
        origin = request.headers.get("Origin")
        if origin and urlsplit(origin).netloc != request.host and origin not in settings.listed_cors_origins:
            raise Forbidden("Without keys, pages of other sites must be listed in PHI4_CORS_ORIGINS.")


def free(view: _View) -> _View:
    """Mark a route as one that needs no key."""
    cast(Any, view).needs_no_key = True
    return view


def install(app: Flask, settings: Settings, access: Access) -> None:
    """Ask for a key on every route of an application, those of later blueprints too. Raises `Unprotected`."""
    auth = app.extensions["phi4-auth"] = Auth(settings, access)

    @app.before_request
    def _authenticate() -> None:
        view = app.view_functions.get(request.endpoint or "")
        # Browsers ask by OPTIONS, without the key, whether they may send the request itself.
        if request.method != "OPTIONS" and not getattr(view, "needs_no_key", False):
            g.caller = auth.caller()


def caller() -> Caller:
    """Say who makes this request, of a route that needs a key."""
    return cast(Caller, g.caller)


def listed_owner() -> str:
    """Whose records are listed: the caller's, or those of the owner that an admin names. Raises `Forbidden`."""
    owner = request.args.get("owner") or caller().owner
    if caller().sees not in (None, owner):
        raise Forbidden("Only an admin key lists what other owners have.")
    return owner


def is_known() -> bool:
    """Tell on a free route whether the caller would be let in elsewhere. Raises `StoreUnavailable`."""
    try:
        cast(Auth, current_app.extensions["phi4-auth"]).caller()
    except (Unauthorized, Forbidden):
        return False
    return True
