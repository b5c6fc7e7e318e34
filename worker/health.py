"""`python -m worker healthy`: whether a worker on this host is ready, for a container's health check."""

from __future__ import annotations

import socket

from phi4.errors import Phi4Error
from phi4.settings import Settings
from phi4.store import Store


def problem(settings: Settings) -> str:
    """Say what keeps this host's worker from serving; '' when nothing does.

    Redis knows: a worker that is stuck, or has lost Redis, is off its list within seconds. A draining one is well.
    """
    try:
        workers = Store.at(settings.redis_url, allow_evicting=settings.allow_evicting_redis).workers.alive()
    except Phi4Error as error:
        return error.message
    here = [w for w in workers if w.name.partition("-")[2].startswith(f"{socket.gethostname()}-")]
    if not here:
        return "no worker of this host has announced itself"
    if any(w.stage in ("ready", "draining") for w in here):
        return ""
    return f"the worker is {here[0].stage}"
