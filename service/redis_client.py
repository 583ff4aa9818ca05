"""Clients of Redis, made from `REDIS_URL` in one place for every process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import redis
import redis.asyncio

if TYPE_CHECKING:
    from redis.asyncio.retry import Retry

CONNECT_TIMEOUT_SECONDS = 5.0


def redis_client(
    url: str,
    *,
    timeout_seconds: float = 10.0,
    connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
    retry: Retry | None = None,
    most_connections: int | None = None,
) -> redis.asyncio.Redis:
    """An asyncio client; nothing is sent yet.

    Args:
        url: as `REDIS_URL` has it.
        timeout_seconds: how long one answer may take.
        connect_timeout_seconds: how long connecting may take.
        retry: what is done about a connection that is lost; the library's own way by default.
        most_connections: commands queue for so many connections; None for one whenever all are busy.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": connect_timeout_seconds,
    }
    if retry is not None:
        options["retry"] = retry
    if most_connections is None:
        return redis.asyncio.Redis.from_url(url, **options)
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url, max_connections=most_connections, timeout=None, **options
    )
    return redis.asyncio.Redis.from_pool(pool)


def blocking_redis_client(url: str) -> redis.Redis:
    """A blocking client, for RQ's bookkeeping; nothing is sent yet. Answers may take any time.

    Args:
        url: as `REDIS_URL` has it.
    """
    return redis.Redis.from_url(url, socket_connect_timeout=CONNECT_TIMEOUT_SECONDS)
