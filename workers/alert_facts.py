"""Looking at the service for what deserves an alert: a few round trips, however much work there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service import jobs, keys
from service.alerts import Broken, Halted, Observation, UsedUp
from service.brakes import PERSON
from service.queue_age import oldest_due_ms
from service.readiness import alive_workers
from service.redis_text import text
from service.rules import OnExhausted
from workers.budget import all_windows

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable

    from redis.asyncio import Redis

    from service.ledger import Ledger
    from service.rules import RuleBook


class Lookout:
    """Looks at one installation.

    Args:
        ledger: where everything is.
        rulebook: the rules in force, for their budgets.
        zone: where a budget's days and months begin.
    """

    def __init__(self, ledger: Ledger, *, rulebook: Callable[[], RuleBook], zone: dt.tzinfo) -> None:
        self._ledger = ledger
        self._redis: Redis = ledger.redis
        self._rulebook = rulebook
        self._zone = zone

    async def look(self) -> Observation:
        """What is so now, by Redis's clock.

        Raises:
            redis.RedisError: Redis cannot be asked.
        """
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.time()
            pipeline.hget(keys.WEBHOOK, "problem")
            pipeline.zcard(keys.HELD)
            pipeline.zcard(keys.ATTENTION)
            pipeline.xlen(keys.QUARANTINE)
            pipeline.get(keys.MISSED)
            (
                (seconds, microseconds),
                problem,
                held,
                dead_letters,
                quarantined,
                missed,
            ) = await pipeline.execute()
        now_ms = int(seconds) * 1000 + int(microseconds) // 1000
        return Observation(
            now_ms=now_ms,
            halt=await self._halt(),
            workers=len(await alive_workers(self._ledger)),
            subscription=None if problem is None else text(problem),
            used_up=await self._used_up(now_ms),
            broken=await self._broken(),
            held=int(held),
            oldest_due_ms=await oldest_due_ms(self._redis, jobs.LIVE_QUEUE, now_ms=now_ms),
            dead_letters=int(dead_letters),
            quarantined=int(quarantined),
            missed=int(missed or 0),
        )

    async def _halt(self) -> Halted | None:
        halt = await self._ledger.brakes.halted()
        if halt is None:
            return None
        return Halted(reason=halt.reason, by_person=halt.kind == PERSON, since_ms=halt.since_ms)

    async def _broken(self) -> tuple[Broken, ...]:
        return tuple(
            Broken(field_id=one.field_id, field_name=one.field_name, rule=one.rule, timeouts=one.timeouts)
            for one in await self._ledger.brakes.open_breakers()
        )

    async def _used_up(self, now_ms: int) -> tuple[UsedUp, ...]:
        windows = all_windows(self._rulebook(), now_ms=now_ms, zone=self._zone)
        spent = await self._redis.mget([window.key for window in windows]) if windows else []
        return tuple(
            UsedUp(words=window.words, drops=window.on_exhausted is OnExhausted.DROP)
            for window, count in zip(windows, spent, strict=True)
            if int(count or 0) >= window.limit
        )
