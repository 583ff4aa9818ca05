"""A lease in Redis: one worker at a time does something for all. It saves work; it guards nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.redis_text import text

if TYPE_CHECKING:
    from redis.asyncio import Redis


class Lease:
    """One owner's view of a lease.

    Args:
        redis: where it is.
        key: its key.
        owner: unique among those who want it.
        seconds: how long it lasts unless it is taken again.
    """

    def __init__(self, redis: Redis, *, key: str, owner: str, seconds: int) -> None:
        self._redis = redis
        self._key = key
        self._owner = owner
        self._seconds = seconds

    async def take(self) -> bool:
        """Take or prolong it; False where somebody else has it.

        Raises:
            redis.RedisError: Redis cannot be asked.
        """
        if await self._redis.set(self._key, self._owner, ex=self._seconds, nx=True):
            return True
        return await self._is_mine() and bool(await self._redis.expire(self._key, self._seconds))

    async def give_up(self) -> None:
        """Let the next one have it at once.

        Raises:
            redis.RedisError: Redis cannot be asked.
        """
        if await self._is_mine():
            await self._redis.delete(self._key)

    async def _is_mine(self) -> bool:
        holder = await self._redis.get(self._key)
        return holder is not None and text(holder) == self._owner
