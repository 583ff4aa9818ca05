"""Keeping Close's pace: calls of an endpoint group wait here until the limiter in Redis lets them go.

One limiter for each API key and endpoint group is shared by all workers (throttle.lua). Each process asks it
for as many calls as wait here, live ones first, and passes every reply's headers on (`workers.pace`,
learn.lua).
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service import keys
from service.scripts import script_text
from workers.pace import FIRST_RATE_PER_SECOND, Pace, Sample, learn

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from workers.ratelimit_header import RateLimit

LONGEST_NAP_SECONDS = 1.0
"""However long the limiter says to wait, ask again after this: a person may have changed something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """What the operator allows at most, below whatever Close allows; None for no ceiling of ours."""

    calls_per_second: float | None = None
    in_flight: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """Leave to make one call now.

    Attributes:
        seq: its number among all calls of the endpoint group.
        at_ms: when it was given, by Redis's clock.
        refusals: 429s of the group until then.
    """

    seq: int
    at_ms: int
    refusals: int


class Throttle:
    """One process's queue for one endpoint group.

    Args:
        redis: where the limiter is.
        limiter: its key; names API key and endpoint group.
        group: the endpoint group, for parking.
        ceiling: the operator's own limits.
    """

    def __init__(self, redis: Redis, *, limiter: str, group: str, ceiling: Ceiling) -> None:
        self._limiter = limiter
        self._keys = [limiter, keys.park(group), keys.COUNTS]
        self._ceiling = ceiling
        self._ask = redis.register_script(script_text("throttle", package="workers"))
        self._publish = redis.register_script(script_text("learn", package="workers"))
        self._live: deque[asyncio.Future[Permit]] = deque()
        self._bulk: deque[asyncio.Future[Permit]] = deque()
        self._pump: asyncio.Task[None] | None = None
        self._pace = Pace()

    @property
    def waiting(self) -> int:
        """Calls of this process that wait."""
        return len(self._live) + len(self._bulk)

    async def permit(self, *, bulk: bool = False) -> Permit:
        """Wait until a call may leave.

        Args:
            bulk: let live calls go first.

        Raises:
            redis.RedisError: Redis stayed away for longer than its client retries.
        """
        mine: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        (self._bulk if bulk else self._live).append(mine)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run())
        return await mine

    async def _run(self) -> None:
        try:
            while self._tidy():
                nap_seconds = min(LONGEST_NAP_SECONDS, await self._ask_once())
                await asyncio.sleep(nap_seconds)
        except Exception as error:  # noqa: BLE001  everyone who waits must hear of it, whatever it is
            for queue in (self._live, self._bulk):
                while queue:
                    one = queue.popleft()
                    if not one.done():
                        one.set_exception(error)

    def _tidy(self) -> int:
        """Forget those who were cancelled; how many still wait."""
        for queue in (self._live, self._bulk):
            while queue and queue[0].done():
                queue.popleft()
        return self.waiting

    async def _ask_once(self) -> float:
        ceiling = self._ceiling
        live, bulk, first, now_ms, wait_ms, refusals = await self._ask(
            keys=self._keys,
            args=[
                len(self._live),
                len(self._bulk),
                "" if ceiling.calls_per_second is None else ceiling.calls_per_second,
                "" if ceiling.in_flight is None else ceiling.in_flight,
                FIRST_RATE_PER_SECOND,
            ],
        )
        seq = int(first)
        for queue, count in ((self._live, live), (self._bulk, bulk)):
            for _ in range(int(count)):
                while queue:
                    one = queue.popleft()
                    if not one.done():
                        one.set_result(Permit(seq=seq, at_ms=int(now_ms), refusals=int(refusals)))
                        break
                seq += 1
        return int(wait_ms) / 1000

    async def heard(self, permit: Permit, limit: RateLimit | None, *, refused: bool = False) -> None:
        """Pass on what the reply to a permitted call said about the limit."""
        sample = Sample(
            seq=permit.seq,
            at_seconds=permit.at_ms / 1000,
            limit=limit.limit if limit else None,
            remaining=limit.remaining if limit else None,
            reset_seconds=limit.reset_seconds if limit else None,
            refused=refused,
            refusals=permit.refusals,
        )
        before = self._pace
        self._pace = learn(before, sample)
        if self._pace is before and not refused:
            return
        await self._publish(
            keys=[self._limiter],
            args=[
                sample.seq,
                permit.at_ms,
                f"{self._pace.rate_per_second:.6f}",
                "" if sample.limit is None else sample.limit,
                "" if sample.remaining is None else sample.remaining,
                int(refused),
            ],
        )
