"""The function that our RQ jobs name.

`close-enrich worker` does not call it: it runs `workers.enrich.enrich` for many jobs on one loop. It is here
so that a job means the same to RQ's own worker, which runs one at a time:
`rq worker enrich --serializer rq.serializers.JSONSerializer --job-class service.jobs.EnrichmentJob`.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

from redis.exceptions import RedisError
from rq import get_current_job

from service.rules_file import load_rules
from service.settings import Settings, load_settings
from workers.enrich import enrich
from workers.runtime import open_tools
from workers.worker import HEARTBEAT_SECONDS

if TYPE_CHECKING:
    from workers.tools import Tools


class NotConfiguredError(Exception):
    """Settings or rules cannot be used, so RQ keeps the job as failed; the message names what is wrong."""


async def run() -> None:
    """Run the enrichment of RQ's current job, with settings from the environment.

    Raises:
        NotConfiguredError: see there.
    """
    job = get_current_job()
    if job is None:
        raise NotConfiguredError("there is no current RQ job")
    settings = load_settings(needs=("REDIS_URL", "CLOSE_API_KEY"))
    if not isinstance(settings, Settings):
        raise NotConfiguredError("; ".join(map(str, settings)))
    result = load_rules(settings.rules_file.read_bytes(), source=str(settings.rules_file))
    if result.rulebook is None:
        raise NotConfiguredError("\n".join(problem.render() for problem in result.problems))
    name = f"rq-{uuid.uuid4().hex[:12]}"
    async with open_tools(settings, result.rulebook, worker=name) as (tools, _):
        beating = asyncio.create_task(_beat(tools))
        try:
            await enrich(job.id, tools, holder=f"{name}/{job.id}")
        finally:
            beating.cancel()


async def _beat(tools: Tools) -> None:
    while True:
        try:
            await tools.ledger.heartbeat(dict(tools.hands.fences))
        except RedisError as error:
            tools.log.warning("heartbeat waits for Redis", error=type(error).__name__)
        await asyncio.sleep(HEARTBEAT_SECONDS)
