"""How long a queue keeps its jobs waiting for a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service import jobs, keys
from service.enrichment import entry_of_job
from service.redis_text import text

if TYPE_CHECKING:
    from redis.asyncio import Redis

FIRST_JOBS = 50
"""How many jobs of a queue are looked at.

Urgent jobs go to the front, the newest first, so the oldest job is not always the first one. It is the first
of the others, or, where all are urgent, the last one, which is looked at as well.
"""


async def oldest_due_ms(redis: Redis, queue: str, *, now_ms: int) -> int | None:
    """Since when a queue's oldest job could have been taken in hand; None where none waits.

    By when the entry fell due, not by when it was planned: what settles, or waits for a budget, a breaker
    or Close's pace, is put back with a time to come and is nobody's delay. Nor by the ledger's index of
    what is due, which the sweeper pushes on. What is scheduled and past its time was not moved on.

    Args:
        redis: where the queue is.
        queue: RQ's name of it.
        now_ms: the time by Redis's clock, Unix milliseconds.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    key = jobs.queue_key(queue)
    async with redis.pipeline(transaction=False) as pipeline:
        pipeline.lrange(key, 0, FIRST_JOBS - 1)
        pipeline.lindex(key, -1)
        pipeline.zrange(jobs.scheduled_key(queue), 0, 0, withscores=True)
        first_jobs, last_job, scheduled = await pipeline.execute()
    queued = sorted({text(one) for one in (*first_jobs, last_job) if one is not None})
    async with redis.pipeline(transaction=False) as pipeline:
        for job_id in queued:
            pipeline.hmget(keys.entry(entry_of_job(job_id)), "due_ms", "planned_ms")
        rows = await pipeline.execute() if queued else []
    # an entry that was due at once leaves out when
    due = [int(due_ms or planned_ms) for due_ms, planned_ms in rows if due_ms or planned_ms]
    due += [round(float(score) * 1000) for _, score in scheduled]
    return min((one for one in due if one <= now_ms), default=None)
