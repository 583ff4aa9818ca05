"""The signature keys in force: those that the environment names, and those of our webhook subscriptions.

A subscription's key is learned when it is made or read, and kept in Redis for every receiver. Keys are
secret: no log line, message or command shows one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from service import keys
from service.redis_text import raw_hash, text, texts
from service.signature import SignatureKey

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio import Redis
    from structlog.typing import FilteringBoundLogger

LOOK_EVERY_SECONDS = 3.0
LEAST_PAUSE_SECONDS = 1.0
"""Between two looks, however many deliveries are refused."""

PATIENCE_SECONDS = 0.95
"""A delivery that waits for a look is answered soon, though Redis hangs."""


class Keyring:
    """What a receiver verifies with. A key of the environment stays whatever Redis says.

    Args:
        redis: where learned keys are.
        fixed: the environment's keys; they come first.
        clock: seconds that never go back.
        log: tells of keys that cannot be read, by their subscription.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        fixed: Sequence[SignatureKey],
        clock: Callable[[], float],
        log: FilteringBoundLogger,
    ) -> None:
        self._redis = redis
        self._fixed = tuple(fixed)
        self._current = self._fixed
        self._clock = clock
        self._log = log
        self._looked_at = float("-inf")
        self._looking = asyncio.Lock()
        self._told: frozenset[str] = frozenset()

    def current(self) -> tuple[SignatureKey, ...]:
        """The keys in force now."""
        return self._current

    async def look(self) -> None:
        """Read the learned keys, at most once a second; while Redis is away, what is known stays.

        Whoever comes while another one looks waits for the same answer.
        """
        if not self._looking.locked() and self._just_looked():
            return
        try:
            async with asyncio.timeout(PATIENCE_SECONDS), self._looking:
                if self._just_looked():
                    return
                try:
                    learned = await self._learned()
                finally:
                    self._looked_at = self._clock()
        except (RedisError, OSError):
            return
        self._current = tuple(dict.fromkeys((*self._fixed, *learned)))

    def _just_looked(self) -> bool:
        return self._clock() - self._looked_at < LEAST_PAUSE_SECONDS

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_SECONDS)

    async def _learned(self) -> list[SignatureKey]:
        learned: list[SignatureKey] = []
        unreadable: set[str] = set()
        for name, value in raw_hash(await self._redis.hgetall(keys.SIGNATURE_KEYS)).items():
            try:
                learned.append(SignatureKey.parse(text(value)))
            except ValueError:
                unreadable.add(text(name))
        for subscription in sorted(unreadable - self._told):
            self._log.error("a learned signature key cannot be read", subscription=subscription)
        self._told = frozenset(unreadable)
        return learned


async def remember_key(redis: Redis, subscription_id: str, key: SignatureKey) -> None:
    """Let every receiver accept what a subscription delivers."""
    await redis.hset(keys.SIGNATURE_KEYS, subscription_id, key.key.hex())


async def forget_key(redis: Redis, subscription_id: str) -> None:
    """Accept nothing more that is signed with a subscription's learned key."""
    await redis.hdel(keys.SIGNATURE_KEYS, subscription_id)


async def known_keys(redis: Redis) -> frozenset[str]:
    """The subscriptions whose keys are known, never the keys."""
    return frozenset(texts(await redis.hkeys(keys.SIGNATURE_KEYS)))
