"""What commands do with Redis: connect, work with the ledger, and say so where Redis does not answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from service.cli.start import give_up, redis_url_or_exit
from service.ledger import Ledger
from service.redis_client import redis_client
from service.redis_connections import trouble

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from service.settings import Settings


def connected(settings: Settings, work: Callable[[Ledger], Awaitable[Any]]) -> Any:
    """What some work with the ledger comes to; or that Redis does not answer, and exit 1."""
    url = redis_url_or_exit(settings)

    async def run() -> Any:
        connection = redis_client(url)
        try:
            return await work(Ledger(connection, zone=settings.budget_timezone))
        finally:
            await connection.aclose()

    try:
        return asyncio.run(run())
    except (RedisError, OSError) as error:
        give_up(f"Redis does not answer at REDIS_URL ({trouble(error)})", code=1)
