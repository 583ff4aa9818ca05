"""Clients of Redis, made from `REDIS_URL` in one place for every process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import redis
import redis.asyncio
from redis.asyncio.connection import parse_url

from service import redis_connections as kinds
from service.redis_address import parse_redis_address

if TYPE_CHECKING:
    from redis.asyncio.retry import Retry

CONNECT_TIMEOUT_SECONDS = 5.0

_AIO = {"unix": kinds.AioUnix, "redis": kinds.AioTcp, "rediss": kinds.AioTls}
_AIO_MASTER = {"redis": kinds.AioMaster, "rediss": kinds.AioMasterTls}
_BLOCKING = {"unix": kinds.BlockingUnix, "redis": kinds.BlockingTcp, "rediss": kinds.BlockingTls}
_BLOCKING_MASTER = {"redis": kinds.BlockingMaster, "rediss": kinds.BlockingMasterTls}


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
        url: as `REDIS_URL` has it; with Sentinels, every new connection is made to the master of the moment.
        timeout_seconds: how long one answer may take.
        connect_timeout_seconds: how long connecting may take, with the search for the master.
        retry: what is done about a connection that is lost or refused; by default, nothing.
        most_connections: commands queue for so many connections; None for one whenever all are busy.

    Raises:
        ValueError: the URL cannot be used.
    """
    options = {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": connect_timeout_seconds,
        **_options(url, single=_AIO, of_master=_AIO_MASTER),
    }
    if retry is not None:
        options["retry"] = retry
    if most_connections is None:
        return redis.asyncio.Redis.from_pool(redis.asyncio.ConnectionPool(**options))
    pool = redis.asyncio.BlockingConnectionPool(max_connections=most_connections, timeout=None, **options)
    return redis.asyncio.Redis.from_pool(pool)


def blocking_redis_client(url: str) -> redis.Redis:
    """A blocking client, for RQ's bookkeeping; nothing is sent yet. Answers may take any time.

    Args:
        url: as `REDIS_URL` has it; with Sentinels, every new connection is made to the master of the moment.

    Raises:
        ValueError: the URL cannot be used.
    """
    options = _options(url, single=_BLOCKING, of_master=_BLOCKING_MASTER)
    pool = redis.ConnectionPool(socket_connect_timeout=CONNECT_TIMEOUT_SECONDS, **options)
    return redis.Redis.from_pool(pool)


def _options(url: str, *, single: dict[str, Any], of_master: dict[str, Any]) -> dict[str, Any]:
    """What a pool passes on to its connections, and their class."""
    address = parse_redis_address(url)
    options: dict[str, Any] = dict(parse_url(address.url))
    scheme = address.url.partition("://")[0].lower()
    options["connection_class"] = single[scheme]
    if address.sentinels:
        del options["host"]
        tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
        options["master"] = kinds.Master(address, tls if scheme == "rediss" else None)
        options["connection_class"] = of_master[scheme]
    return options
