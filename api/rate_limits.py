"""Requests per minute of each key, told in RateLimit headers (IETF draft "RateLimit header fields for HTTP", 10)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from flask import Flask, Response, g
from limits import RateLimitItemPerMinute
from limits.errors import StorageError
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from api.auth import Caller
from phi4.errors import RateLimited, StoreUnavailable
from phi4.store import ApiKey, Store
from phi4.store.keys import key

_WINDOW_S = 60


class RateLimits:
    """Counts requests in Redis, over a window that slides: what came in the minute before counts for less and less."""

    def __init__(self, redis_url: str, store: Store) -> None:
        pool = store.client.connection_pool
        storage = RedisStorage(redis_url, connection_pool=pool, key_prefix=key("rate"), wrap_exceptions=True)
        self._limiter = SlidingWindowCounterRateLimiter(storage)

    def count(self, api_key: ApiKey) -> tuple[bool, int, int]:
        """Count a request, unless it is one too many.

        Returns whether it may go on, how many more may, and the seconds until there are more.
        Raises `StoreUnavailable`.
        """
        item = RateLimitItemPerMinute(api_key.requests_per_minute)
        with _named_failures():
            allowed = self._limiter.hit(item, api_key.id)
            reset_time, remaining = self._limiter.get_window_stats(item, api_key.id)
        wait = min(max(1, math.ceil(reset_time - time.time())), _WINDOW_S)
        return allowed, remaining if allowed else 0, wait


@contextmanager
def _named_failures() -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        raise StoreUnavailable(f"The job store does not answer: {type(error.storage_error).__name__}.") from error


def install(app: Flask, limits: RateLimits) -> None:
    """Count every request that was made with a key which has a limit."""

    @app.before_request
    def _count() -> None:
        caller: Caller | None = g.get("caller")
        if caller and caller.key and caller.key.requests_per_minute:
            allowed, remaining, wait = limits.count(caller.key)
            g.rate_headers = {
                "RateLimit-Policy": f'"requests";q={caller.key.requests_per_minute};w={_WINDOW_S}',
                "RateLimit": f'"requests";r={remaining};t={wait}',
            }
            if not allowed:
                raise RateLimited(retry_after=wait)

    @app.after_request
    def _say(response: Response) -> Response:
        response.headers.update(g.get("rate_headers", {}))
        return response
