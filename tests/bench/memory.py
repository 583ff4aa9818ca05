"""What an enrichment takes of Redis's memory, while it waits and when it has ended."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import shutil
import string
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import redis.asyncio

from service import jobs, keys
from service.accept import Accepter
from service.embedded_redis import EmbeddedRedis, server_binary
from service.enrichment import State
from service.event import Event
from service.ledger import Claim, Ledger
from service.planning import PlannedEnrichment
from service.redis_text import texts
from service.rules import Mode, ObjectType, Priority, Target
from service.transitions import Settlement
from tests.bench.measure import MB

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.bench.figures import Figures

Measure: TypeAlias = "Callable[[_Box, Figures, int], Awaitable[None]]"

FIELDS = ("Industry", "Employee count", "Pitch")
"""The rules are called like their fields, as in the examples."""

SETTLE_SECONDS = 20.0
ID_LETTERS = 43
"""How many follow the prefix in an id of Close's; an event's has fewer."""

EVENT_ID_LETTERS = 22
AT_ONCE = 100
HISTORY_LINES = 100_000
"""At which accept.lua and entry.lua cap it."""

VALUE = "Software for joineries"
REASONING = (
    "The company's web site describes planning software for joineries and names no other line of business."
)


def servers() -> list[str]:
    """The servers to measure: ours, and the system's `redis-server` where there is one."""
    return list(dict.fromkeys(filter(None, (server_binary(), shutil.which("redis-server")))))


def run_memory(binary: str, *, entries: int) -> tuple[str, Figures]:
    """Plan and settle that many enrichments, three for each lead; the server's name, and bytes for each.

    Nothing counts that does not grow with their number: Redis itself, and the history, which is capped.

    Args:
        binary: the server.
        entries: how many; rounded up to whole leads.
    """
    leads = -(-entries // len(FIELDS))
    figures: Figures = {"entries": leads * len(FIELDS)}
    name = ""
    for measure in (_queued, _settling_to_finished):
        # a server of its own, as one that was emptied gives its memory back in its own time
        with (
            tempfile.TemporaryDirectory() as directory,
            EmbeddedRedis(Path(directory), binary=binary) as server,
        ):
            name = asyncio.run(_on_server(server.url, measure, figures, leads=leads))
    return name, figures


async def _on_server(url: str, measure: Measure, figures: Figures, *, leads: int) -> str:
    async with redis.asyncio.Redis.from_url(url, max_connections=AT_ONCE) as client:
        info = await client.info("server")
        await measure(_Box(client), figures, leads)
    name = "Valkey" if "valkey_version" in info else "Redis"
    return f"{name} {info.get('valkey_version', info['redis_version'])}"


async def _queued(box: _Box, figures: Figures, leads: int) -> None:
    before = await box.warm_bytes()
    await box.plan(leads, settle_seconds=0.0)
    figures["queued_bytes"] = box.each(before, await box.used_bytes(), leads)
    figures["history_mb_at_its_cap"] = round(await box.history_bytes_of_a_line() * HISTORY_LINES / MB, 1)


async def _settling_to_finished(box: _Box, figures: Figures, leads: int) -> None:
    before = await box.warm_bytes()
    await box.plan(leads, settle_seconds=SETTLE_SECONDS)
    figures["settling_bytes"] = box.each(before, await box.used_bytes(), leads)
    await box.promote()
    figures["settled_and_queued_bytes"] = box.each(before, await box.used_bytes(), leads)
    await box.finish()
    figures["finished_bytes"] = box.each(before, await box.used_bytes(), leads)


class _Box:
    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._redis = client
        self._accepter = Accepter(client)
        self._ledger = Ledger(client)
        self._random = random.Random(7)  # noqa: S311  chance in a benchmark is no secret
        self._organization_id = self._id("orga_")
        self._fields = {name: self._id("cf_") for name in FIELDS}

    def _id(self, prefix: str, letters: int = ID_LETTERS) -> str:
        return prefix + "".join(self._random.choices(string.ascii_letters + string.digits, k=letters))

    async def warm_bytes(self) -> int:
        """What is used once scripts, connections and the first of everything are there."""
        await self.plan(1, settle_seconds=0.0)
        await self.finish()
        return await self.used_bytes()

    async def used_bytes(self) -> int:
        info = await self._redis.info("memory")
        passing = info["mem_clients_normal"] + info["mem_aof_buffer"]
        history = await self._redis.memory_usage(keys.HISTORY, samples=0) or 0
        return int(info["used_memory"]) - passing - history

    async def history_bytes_of_a_line(self) -> float:
        size = await self._redis.memory_usage(keys.HISTORY, samples=0) or 0
        return size / max(1, await self._redis.xlen(keys.HISTORY))

    @staticmethod
    def each(before: int, after: int, leads: int) -> int:
        return round((after - before) / leads / len(FIELDS))

    async def plan(self, leads: int, *, settle_seconds: float) -> None:
        for start in range(0, leads, AT_ONCE):
            await asyncio.gather(
                *(self._plan_one(settle_seconds) for _ in range(min(AT_ONCE, leads - start)))
            )

    async def _plan_one(self, settle_seconds: float) -> None:
        lead_id = self._id("lead_")
        # a moment later than Redis's first note, as with any lead but the very first ones
        created = (dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1)).replace(tzinfo=None).isoformat()
        event = Event(
            id=self._id("ev_", EVENT_ID_LETTERS),
            organization_id=self._organization_id,
            object_type="lead",
            object_id=lead_id,
            lead_id=lead_id,
            action="created",
            date_created=created,
            date_updated=created,
        )
        wanted = [
            PlannedEnrichment(
                target=Target(
                    rule=name,
                    object_type=ObjectType.LEAD,
                    field_id=field_id,
                    field_name=name,
                    mode=Mode.FILL,
                    settle_seconds=settle_seconds,
                    priority=Priority.NORMAL,
                ),
                object_id=lead_id,
                lead_id=lead_id,
                judged=True,
                reopens=False,
            )
            for name, field_id in self._fields.items()
        ]
        await self._accepter.accept(event, wanted)

    async def promote(self) -> None:
        ids = texts(await self._redis.zrange(jobs.scheduled_key(jobs.LIVE_QUEUE), 0, -1))
        for start in range(0, len(ids), AT_ONCE):
            await self._ledger.promote(jobs.LIVE_QUEUE, ids[start : start + AT_ONCE])

    async def finish(self) -> None:
        """Call for everything and settle it; RQ's part of each job goes as its bookkeeping has it."""
        job_ids = texts(await self._redis.lrange(jobs.queue_key(jobs.LIVE_QUEUE), 0, -1))
        await self._redis.delete(jobs.queue_key(jobs.LIVE_QUEUE))
        for start in range(0, len(job_ids), AT_ONCE):
            await asyncio.gather(*map(self._finish_one, job_ids[start : start + AT_ONCE]))

    async def _finish_one(self, job_id: str) -> None:
        claim = await self._ledger.begin(job_id, job_id.partition("-")[0], holder="bench/1")
        if not isinstance(claim, Claim):
            raise TypeError(claim.why)
        await self._ledger.permit_call(claim, group="enrich")
        settlement = Settlement(state=State.FILLED, value=VALUE, confidence="high", reasoning=REASONING)
        await self._ledger.settle(claim, settlement)
        await self._redis.delete(jobs.job_key(job_id))
