"""Keeping Close's pace: calls of an endpoint group wait here until the limiter in Redis lets them go.

One limiter for each API key and endpoint group is shared by all workers (throttle.lua). Each process asks it
for as many calls as wait here, live ones first, and passes every reply's headers on (`workers.pace`,
learn.lua).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service import keys
from service.scripts import Script, script_text
from workers.pace import FIRST_RATE_PER_SECOND, Pace, Sample, learn
from workers.share import kept_for_live

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from workers.ratelimit_header import RateLimit

LONGEST_NAP_SECONDS = 1.0
"""However long the limiter says to wait, ask again after this: a person may have changed something."""

PUBLISH_EVERY_MS = 20
"""Of calls permitted within so short a time, one reply tells the other workers enough."""


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
        epoch: names the limiter that gave it; a Redis that lost everything begins another one.
    """

    seq: int
    at_ms: int
    refusals: int
    epoch: int


class Throttle:
    """One process's queue for one endpoint group.

    Args:
        redis: where the limiter is.
        limiter: its key; names API key and endpoint group.
        group: the endpoint group, for parking.
        ceiling: the operator's own limits.
    """

    def __init__(self, redis: Redis, *, limiter: str, group: str, ceiling: Ceiling) -> None:
        self.limiter = limiter
        self._redis = redis
        self._unused = keys.unused_permits(limiter)
        self._keys = [limiter, keys.park(group), keys.COUNTS, self._unused]
        self._ceiling = ceiling
        self._ask = Script(redis, script_text("throttle", package="workers"))
        self._publish = Script(redis, script_text("learn", package="workers"))
        self._live: deque[asyncio.Future[Permit]] = deque()
        self._bulk: deque[asyncio.Future[Permit]] = deque()
        self._pump: asyncio.Task[None] | None = None
        self._pace = Pace()
        self._epoch: int | None = None
        self._published: Permit | None = None

    @property
    def waiting(self) -> int:
        """Calls of this process that wait."""
        return len(self._live) + len(self._bulk)

    async def permit(self, *, bulk: bool = False) -> Permit:
        """Wait until a call may leave. A permit that comes too late for a cancelled caller goes to the next.

        Args:
            bulk: let live calls go first.

        Raises:
            redis.RedisError: Redis stayed away for longer than its client retries.
        """
        queue = self._bulk if bulk else self._live
        mine: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        queue.append(mine)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run())
        try:
            return await mine
        except asyncio.CancelledError:
            if mine.cancelled():
                with contextlib.suppress(ValueError):  # it may have been passed over already
                    queue.remove(mine)
            elif mine.exception() is None:
                self._give(mine.result(), queue)
            raise

    async def used(self, permit: Permit) -> None:
        """The call is written down as under way, or will not be made: it is counted there, or nowhere."""
        if self._ceiling.in_flight is not None:
            await self._redis.zrem(self._unused, permit.seq)

    async def _run(self) -> None:
        try:
            while self.waiting:
                nap_seconds = min(LONGEST_NAP_SECONDS, await self._ask_once())
                await asyncio.sleep(nap_seconds)
        except Exception as error:  # noqa: BLE001  everyone who waits must hear of it, whatever it is
            for queue in (self._live, self._bulk):
                while queue:
                    one = queue.popleft()
                    if not one.done():
                        one.set_exception(error)

    async def _ask_once(self) -> float:
        """Ask the limiter for all who wait; how many seconds until it is worth asking again."""
        ceiling = self._ceiling
        live, bulk, first, at_ms, wait_us, refusals, epoch = await self._ask(
            keys=self._keys,
            args=[
                len(self._live),
                len(self._bulk),
                "" if ceiling.calls_per_second is None else ceiling.calls_per_second,
                "" if ceiling.in_flight is None else ceiling.in_flight,
                FIRST_RATE_PER_SECOND,
                0 if ceiling.in_flight is None else kept_for_live(ceiling.in_flight),
            ],
        )
        if epoch != self._epoch:
            self._epoch, self._pace, self._published = epoch, Pace(), None
        for number in range(live + bulk):
            permit = Permit(seq=first + number, at_ms=at_ms, refusals=refusals, epoch=epoch)
            self._give(permit, self._live if number < live else self._bulk)
        return float(wait_us) / 1e6

    def _give(self, permit: Permit, queue: deque[asyncio.Future[Permit]]) -> None:
        """Let the first in the queue go; where all have given up, the permit is left unused."""
        while queue:
            one = queue.popleft()
            if not one.done():
                one.set_result(permit)
                return

    async def heard(self, permit: Permit, limit: RateLimit | None, *, refused: bool = False) -> None:
        """Pass on what the reply to a permitted call said about the limit.

        Raises:
            redis.RedisError: Redis stayed away for longer than its client retries.
        """
        if permit.epoch != self._epoch:
            return
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
        if not refused and (self._pace is before or self._told_just_now(permit, before)):
            return
        self._published = permit
        await self._publish(
            keys=[self.limiter],
            args=[
                sample.seq,
                permit.at_ms,
                f"{self._pace.rate_per_second:.6f}",
                "" if sample.limit is None else sample.limit,
                "" if sample.remaining is None else sample.remaining,
                int(refused),
                permit.epoch,
            ],
        )

    def _told_just_now(self, permit: Permit, before: Pace) -> bool:
        """Whether all workers know already what a reply said, but for a moment's calls."""
        if self._published is None or permit.at_ms - self._published.at_ms >= PUBLISH_EVERY_MS:
            return False
        newest, known = self._pace.newest, before.newest
        return newest is not None and known is not None and newest.limit == known.limit
