"""Keeps the webhook subscription alive: one worker at a time looks at it every few minutes and mends it.

Close pauses a subscription that fails for three days, or whose queue is full, and drops what waited
(https://developer.close.com/api/resources/webhooks). What was lost is then read from Close's event log.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from service import keys
from service.redis_text import text
from workers.subscription import Change, Keep, Nothing
from workers.webhook_reply import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio import Redis
    from structlog.typing import FilteringBoundLogger

    from workers.subscription import Interest
    from workers.webhooks import Ensured, Webhooks

LOOK_EVERY_SECONDS = 180
LOOK_AGAIN_SECONDS = 30
"""After Close could not be asked, or refused."""

TICK_SECONDS = 2.0
REMEMBERED_SECONDS = 4 * LOOK_EVERY_SECONDS
"""What a look has found is not believed for ever: nobody may look any more."""


class Watcher:
    """Looks after the subscription of one receiver. Every worker runs one; a lease lets one look at a time.

    Args:
        webhooks: Close's side.
        redis: for the lease and what was found.
        url: the receiver's address.
        events: what it needs at the moment.
        log: what was found and done.
    """

    def __init__(
        self,
        webhooks: Webhooks,
        redis: Redis,
        *,
        url: str,
        events: Callable[[], Sequence[Interest]],
        log: FilteringBoundLogger,
    ) -> None:
        self._webhooks = webhooks
        self._redis = redis
        self._url = url
        self._events = events
        self._log = log
        self._told = ""

    async def run(self) -> None:
        """Look at once where others have not looked for the same, and then whenever a look is due."""
        looked_for = ""
        while True:
            try:
                wish = self._wish()
                if await self._is_due(wish, new=wish != looked_for):
                    await self.look()
                looked_for = wish
            except RedisError as error:
                self._log.warning("the subscription's watcher waits for Redis", error=type(error).__name__)
            except Exception:  # noqa: BLE001  nobody would look any more if this ended
                self._log.exception("the subscription's watcher went wrong and goes on")
            await asyncio.sleep(TICK_SECONDS)

    def _wish(self) -> str:
        """Names what is looked for, for the lease."""
        wish = repr((self._url, tuple(self._events()))).encode()
        return hashlib.blake2b(wish, digest_size=8).hexdigest()

    async def _is_due(self, wish: str, *, new: bool) -> bool:
        """Whether it is this worker's turn; for a new address, or other events than before, at once."""
        lease = keys.WEBHOOK_WATCHER
        if await self._redis.set(lease, wish, ex=LOOK_EVERY_SECONDS, nx=True):
            return True
        if not new:
            return False
        looked_for = await self._redis.get(lease)
        if looked_for is None or text(looked_for) == wish:
            return False
        return bool(await self._redis.set(lease, wish, ex=LOOK_EVERY_SECONDS))

    async def look(self) -> None:
        """Look once, mend what needs it, end a rotation whose new subscription has delivered."""
        found = await self._webhooks.ensure(url=self._url, events=self._events())
        if isinstance(found, Nothing):
            await self._redis.delete(keys.WEBHOOK)
            return
        problem = found.reason if isinstance(found, Trouble) else problem_with(found)
        if isinstance(found, Trouble):
            await self._redis.expire(keys.WEBHOOK_WATCHER, LOOK_AGAIN_SECONDS)
        elif found.rotating:
            await self._webhooks.finish(url=self._url)
        await self._remember(
            problem, subscription="" if isinstance(found, Trouble) else found.subscription.id
        )

    async def _remember(self, problem: str, *, subscription: str) -> None:
        """For `/readyz` and alerts; the log is told of a problem once until it changes."""
        if problem and problem != self._told:
            self._log.warning("the subscription needs attention", subscription=subscription, problem=problem)
        self._told = problem
        async with self._redis.pipeline() as pipeline:
            pipeline.delete(keys.WEBHOOK)
            pipeline.hset(keys.WEBHOOK, mapping={"subscription": subscription, "problem": problem})
            pipeline.expire(keys.WEBHOOK, REMEMBERED_SECONDS)
            await pipeline.execute()


def problem_with(found: Ensured) -> str:
    """What a person should know about a subscription, in words; "" where it is in order."""
    one, step = found.subscription, found.step
    left_paused = isinstance(step, Keep) and step.left_paused
    was_paused = isinstance(step, Change) and step.reactivates
    problems = (
        (left_paused, "is paused by a person: close-enrich webhook resume"),
        (not one.active, "is not active, although Close was asked to activate it"),
        (not found.key_known, "does not show its key: set CLOSE_SIGNATURE_KEYS"),
        (was_paused, "was paused and is active again; what it missed is read from the event log"),
        (bool(one.failing_buckets), "is failing: none of Close's latest deliveries got a 2xx"),
    )
    return next((f"{one.id} {words}" for so, words in problems if so), "")
