"""The part of a check that looks at RQ: jobs that deliver nothing, or that nobody runs any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rq.executions import ExecutionRegistry

from service import jobs, keys
from service.enrichment import entry_of_job
from service.findings import HOPELESS, JobFacts, Kind, job_problem
from service.redis_text import text, texts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from redis.asyncio import Redis

    from service.findings import Report

PAGE = 500
"""Ids read in one round trip."""

Place = tuple[str, str]
"""The key of a list or sorted set of RQ's, and the id of a job found in it."""


def executions_key(job_id: str) -> str:
    """The sorted set of one job's executions: there while the job is being run."""
    return ExecutionRegistry.key_template.format(job_id)


async def job_places(redis: Redis) -> set[Place]:
    """Where each job is that waits to be run. One that moves meanwhile may be found twice or not at all."""
    places = set()
    for queue in jobs.QUEUES:
        for key in (jobs.queue_key(queue), jobs.intermediate_key(queue)):
            places.update([(key, job_id) async for job_id in _list_members(redis, key)])
        key, cursor = jobs.scheduled_key(queue), 0
        while True:
            cursor, rows = await redis.zscan(key, cursor, count=PAGE)
            places.update((key, text(job_id)) for job_id, _ in rows)
            if cursor == 0:
                break
    return places


async def check_jobs(redis: Redis, places: Iterable[Place], *, report: Report, repair: bool) -> None:
    """Look at RQ's jobs.

    Args:
        redis: where they are.
        places: where those that wait were found.
        report: what is found is written down here.
        repair: remove those that deliver nothing.
    """
    ordered = sorted(places)
    report.jobs = len(ordered)
    for at in range(0, len(ordered), PAGE):
        page = ordered[at : at + PAGE]
        async with redis.pipeline(transaction=False) as pipeline:
            for _, job_id in page:
                pipeline.hmget(keys.entry(entry_of_job(job_id)), ["state", "job"])
            rows = await pipeline.execute()
        for place, row in zip(page, rows, strict=True):
            if job_problem(_facts(place[1], row)) is not None:
                await _judge(redis, place, report=report, repair=repair)
    for queue in jobs.QUEUES:
        await _bury_abandoned(redis, queue, report=report, repair=repair)


async def _judge(redis: Redis, place: Place, *, report: Report, repair: bool) -> None:
    """Look once more, in one step, whether a job is wrong and still there. A stale job never comes right."""
    key, job_id = place
    scheduled = key in {jobs.scheduled_key(queue) for queue in jobs.QUEUES}
    async with redis.pipeline() as pipeline:
        pipeline.hmget(keys.entry(entry_of_job(job_id)), ["state", "job"])
        if scheduled:
            pipeline.zscore(key, job_id)
        else:
            pipeline.lpos(key, job_id)
        row, found = await pipeline.execute()
    kind = job_problem(_facts(job_id, row, present=found is not None))
    if kind is None:
        return
    repaired = repair and kind not in HOPELESS
    if repaired:
        async with redis.pipeline() as pipeline:
            if scheduled:
                pipeline.zrem(key, job_id)
            else:
                pipeline.lrem(key, 0, job_id)
            pipeline.delete(jobs.job_key(job_id))
            await pipeline.execute()
    report.note(kind, job_id, repaired=repaired)


async def _bury_abandoned(redis: Redis, queue: str, *, report: Report, repair: bool) -> None:
    """What is being run may outlive what it delivers for a moment: only its worker's silence counts."""
    started = jobs.started_key(queue)
    seconds, _ = await redis.time()
    report.jobs += await redis.zcard(started)
    for execution in texts(await redis.zrangebyscore(started, "-inf", f"({seconds}")):
        job_id = execution.partition(":")[0]
        if repair:
            async with redis.pipeline() as pipeline:
                pipeline.zrem(started, execution)
                pipeline.delete(jobs.job_key(job_id), executions_key(job_id))
                await pipeline.execute()
        report.note(Kind.JOB_ABANDONED, job_id, repaired=repair)


async def _list_members(redis: Redis, key: str) -> AsyncIterator[str]:
    start = 0
    while rows := await redis.lrange(key, start, start + PAGE - 1):
        for job_id in texts(rows):
            yield job_id
        start += PAGE


def _facts(job_id: str, row: list[Any], *, present: bool = True) -> JobFacts:
    state, job = (None if part is None else part.decode(errors="replace") for part in row)
    return JobFacts(job_id=job_id, present=present, entry_state=state, entry_job=job)
