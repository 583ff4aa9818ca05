"""Since when Redis remembers: how a complete loss of it is noticed, and told from a new installation.

Every process notes at its start, and from time to time, that Redis knows of all calls from now on. An event
that is planned without that note comes after a loss that nobody has noticed yet; accept.lua then makes the
note itself. What is planned for a record that existed by then may have been in a call that still runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from service import keys

if TYPE_CHECKING:
    from redis.asyncio import Redis


async def note_since(redis: Redis) -> bool:
    """Note that Redis remembers from now on; False where it does already.

    Raises:
        redis.RedisError: Redis is away.
    """
    seconds, microseconds = await redis.time()
    return bool(await redis.set(keys.SINCE, seconds * 1000 + microseconds // 1000, nx=True))
