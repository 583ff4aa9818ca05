"""What the housekeeper takes for its passes over a long line: when all is well, overdue at once, or lost."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import redis.asyncio

from service import jobs, keys
from service.enrichment import entry_of_job
from service.ledger import Ledger
from service.log import get_logger
from service.redis_text import texts
from workers.housekeeping import SWEEP_EVERY_SECONDS, Housekeeper
from workers.overdue import WALK_EVERY_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.figures import Figures
    from tests.bench.receivers import Receiver

LOST = 20
LONG_AGO_MS = 1
MOST_PASSES = 2000
PAGE = 1000
SLOW_US = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pass:
    wall_seconds: float
    own_cpu_seconds: float
    redis_cpu_seconds: float


class _Passes:
    """One housekeeper's passes, one after the other, for which five seconds go by each time."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._now = 0.0
        self._housekeeper = Housekeeper(
            Ledger(client), worker="bench", clock=lambda: self._now, log=get_logger("bench")
        )

    async def next(self) -> _Pass:
        self._now += SWEEP_EVERY_SECONDS
        redis_before, own_before, before = (
            await _redis_cpu(self._client),
            time.process_time(),
            time.perf_counter(),
        )
        await self._housekeeper.tick()
        wall, own = time.perf_counter() - before, time.process_time() - own_before
        return _Pass(
            wall_seconds=wall,
            own_cpu_seconds=own,
            redis_cpu_seconds=await _redis_cpu(self._client) - redis_before,
        )

    async def until_nothing_is_overdue(self) -> list[_Pass]:
        done: list[_Pass] = []
        while len(done) < MOST_PASSES:
            done.append(await self.next())
            if not await self._client.zcount(keys.ACTIVE, "-inf", await _now_ms(self._client)):
                return done
        raise RuntimeError(f"{MOST_PASSES} passes have left something that was overdue")


def sweeper_cost(receiver: Receiver, *, waiting: int) -> Figures:
    """Passes over a healthy line, over one that is overdue all at once, and until a few lost jobs are found.

    Args:
        receiver: whose Redis holds the backlog.
        waiting: how many enrichments wait there, as the table says.
    """
    return asyncio.run(_measured(receiver.redis_url, waiting=waiting))


async def _measured(url: str, *, waiting: int) -> Figures:
    async with redis.asyncio.Redis.from_url(url) as client:
        await client.config_set("slowlog-log-slower-than", SLOW_US)
        await client.config_set("slowlog-max-len", 100_000)
        await client.slowlog_reset()
        passes = _Passes(client)
        healthy = [await passes.next() for _ in range(int(WALK_EVERY_SECONDS / SWEEP_EVERY_SECONDS))]
        await _all_overdue(client)
        overdue = await passes.until_nothing_is_overdue()
        slowest = await _slowest_script_us(client)
        lost = await _lose(client, LOST)
        found = await passes.until_nothing_is_overdue()
        if (rescued := await _jobs_of(client, lost)) & set(lost):
            raise RuntimeError(f"{len(rescued & set(lost))} of {LOST} lost jobs were not planned again")
    return {
        "waiting": waiting,
        **_shares("healthy", healthy),
        "overdue_passes": len(overdue),
        **_shares("overdue", overdue),
        "overdue_worker_cpu_seconds": round(sum(one.own_cpu_seconds for one in overdue), 2),
        "overdue_redis_cpu_seconds": round(sum(one.redis_cpu_seconds for one in overdue), 2),
        "lost": LOST,
        "passes_until_lost_are_found": len(found),
        "slowest_script_ms": round(slowest / 1000, 1),
    }


def _shares(name: str, passes: Sequence[_Pass]) -> Figures:
    """Of a core, while a pass begins every five seconds; and the longest of them."""
    seconds = SWEEP_EVERY_SECONDS * len(passes)
    return {
        f"{name}_worker_percent_of_core": _percent(sum(one.own_cpu_seconds for one in passes) / seconds),
        f"{name}_redis_percent_of_core": _percent(sum(one.redis_cpu_seconds for one in passes) / seconds),
        f"{name}_longest_pass_ms": round(1000 * max(one.wall_seconds for one in passes), 1),
    }


def _percent(share: float) -> float:
    return round(100 * share, 2)


async def _all_overdue(client: redis.asyncio.Redis) -> None:
    """As if all had waited for longer than their grace."""
    for first in range(0, await client.zcard(keys.ACTIVE), PAGE):
        ids = texts(await client.zrange(keys.ACTIVE, first, first + PAGE - 1))
        await client.zadd(keys.ACTIVE, dict.fromkeys(ids, LONG_AGO_MS), xx=True)


async def _lose(client: redis.asyncio.Redis, count: int) -> list[str]:
    """Take jobs from all over the line away, long after they were due; their ids."""
    lost = []
    for queue in jobs.QUEUES:
        key = jobs.queue_key(queue)
        total = await client.llen(key)
        for index in range(0, total, max(1, total // count)):
            if len(lost) < count and (job_id := await client.lindex(key, index)):
                lost += texts([job_id])
    for job_id in lost:
        for queue in jobs.QUEUES:
            await client.lrem(jobs.queue_key(queue), 1, job_id)
    await client.zadd(keys.ACTIVE, dict.fromkeys(map(entry_of_job, lost), await _now_ms(client)), xx=True)
    return lost


async def _jobs_of(client: redis.asyncio.Redis, job_ids: Sequence[str]) -> set[str]:
    """The jobs by which their entries are delivered now."""
    found = [await client.hget(keys.entry(entry_of_job(one)), "job") for one in job_ids]
    return set(texts([one for one in found if one]))


async def _slowest_script_us(client: redis.asyncio.Redis) -> int:
    """The slowest step of a pass in Redis; 0 where none took a millisecond."""
    log = await client.slowlog_get(100_000)
    return max((one["duration"] for one in log if one["command"].upper().startswith(b"EVAL")), default=0)


async def _now_ms(client: redis.asyncio.Redis) -> int:
    seconds, microseconds = await client.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


async def _redis_cpu(client: redis.asyncio.Redis) -> float:
    used = await client.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])
