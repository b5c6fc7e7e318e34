"""Opens the connection to Redis, names its failures, and checks that this server can be trusted with jobs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import redis
import redis.client
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from phi4.errors import ServiceError, StorageFull, StoreUnavailable


class UnsuitableRedis(ServiceError):
    """This Redis cannot be used as the job store."""

    code = "unsuitable_redis"
    retryable = False


class Client(redis.Redis):
    """A Redis client that speaks of its failures in this project's errors."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run one command. Raises `StoreUnavailable` when Redis is away, `StorageFull` when its memory is full."""
        with _failures_named():
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Steps:
        """Collect commands that are sent together."""
        return Steps(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class Steps(redis.client.Pipeline):
    """Commands that are sent together."""

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Run them. Raises as `Client.execute_command` does."""
        with _failures_named():
            return super().execute(raise_on_error)


@contextmanager
def _failures_named() -> Iterator[None]:
    try:
        yield
    except redis.exceptions.OutOfMemoryError:
        raise StorageFull("The job store is full; try again later.") from None
    except (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError, redis.ReadOnlyError) as error:
        raise StoreUnavailable(f"The job store does not answer: {type(error).__name__}.") from error
    except redis.ResponseError as error:
        # The server cannot write its disk, and takes no changes until it can. Of several commands the client names the
        # one first.
        if str(error).rpartition("caused error: ")[2].startswith("MISCONF"):
            raise StorageFull("The job store cannot write its disk; try again later.") from None
        raise


def connect(url: str, *, timeout: float = 5.0) -> Client:
    """Give a client whose replies are text; it connects on first use. `timeout` in seconds, for each reply too."""
    return cast(
        Client,
        Client.from_url(
            url,
            decode_responses=True,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            socket_keepalive=True,
            health_check_interval=15,
            retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=2),
        ),
    )


def check_server(client: redis.Redis, *, allow_evicting: bool = False) -> None:
    """Refuse a server that is too old or that would throw jobs away when full. Raises `UnsuitableRedis`."""
    server = client.info("server")
    version = str(server.get("redis_version", "0"))
    if int(version.split(".")[0]) < 7:
        raise UnsuitableRedis(f"Redis {version} is too old; version 7 or newer, or Valkey, is needed.")
    policy = _policy(client)
    if policy not in ("", "noeviction") and not allow_evicting:
        raise UnsuitableRedis(
            f"Redis may throw jobs away when it is full (maxmemory-policy {policy}). Set it to noeviction, "
            "or set PHI4_ALLOW_EVICTING_REDIS=1 if losing jobs is acceptable."
        )


def _policy(client: redis.Redis) -> str:
    try:
        return str(cast(dict[str, Any], client.config_get("maxmemory-policy")).get("maxmemory-policy", ""))
    except redis.ResponseError:
        # Managed servers often forbid CONFIG; INFO tells the same.
        return str(client.info("memory").get("maxmemory_policy", ""))
