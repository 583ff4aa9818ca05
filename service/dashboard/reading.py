"""What the Overview and the frame show: read from Redis in a bounded number of commands and rows."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import msgspec

from service import keys
from service.charts import ended_per_minute, fold, minutes
from service.costs import METRICS, read_costs, sum_by
from service.dashboard.glance import Attention, BudgetLine, Money, Overview, Result, Slice, Work
from service.dashboard.health import health_of
from service.enrichment import State
from service.jobs import LIVE_QUEUE
from service.overview import read_status
from service.queue_age import oldest_due_ms
from service.readiness import readiness
from service.redis_text import raw_hash, text

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from service.charts import Minute
    from service.dashboard.desk import Desk

CHART_MINUTES = 60
RATE_MINUTES = 5
"""The pace that is shown is that of the last whole minutes."""

NEWEST = 12
LOOKED_AT = (60, 200, 400)
"""Among so many newest facts, and then so many before them, the newest results are looked for.

A result follows one or two other facts; while calls are halted, many that wait come between.
"""


async def read_attention(redis: Redis) -> Attention:
    """How much waits for a person, in one round trip.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    async with redis.pipeline(transaction=False) as pipeline:
        pipeline.zcard(keys.ATTENTION)
        pipeline.zcard(keys.HELD)
        pipeline.xlen(keys.QUARANTINE)
        pipeline.scard(keys.BREAKERS)
        pipeline.exists(keys.HALT)
        dead, held, quarantined, breakers, halted = await pipeline.execute()
    return Attention(
        dead_letters=dead, held=held, quarantined=quarantined, breakers=breakers, halted=bool(halted)
    )


async def read_overview(desk: Desk) -> Overview:
    """Look once.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    redis, now_ms = desk.redis, desk.now_ms()
    status = await read_status(desk.ledger)
    attention = await read_attention(redis)
    ready = await readiness(
        desk.ledger, desk.knowledge(), keyed=desk.keyed(), redis_problems=desk.redis_problems()
    )
    budgets = await read_budgets(desk)
    chart = await minutes(redis, minutes=CHART_MINUTES, now=now_ms / 1000)
    oldest_ms = await oldest_due_ms(redis, LIVE_QUEUE, now_ms=now_ms)
    return Overview(
        at_ms=now_ms,
        health=health_of(
            problems=ready.problems,
            degraded=ready.degraded,
            halted=status["halted"] is not None,
            workers=len(status["workers"]),
            used_up=[one.words for one in budgets if one.spent >= one.limit],
        ),
        attention=attention,
        work=_work(status, oldest_seconds=0.0 if oldest_ms is None else max(0, now_ms - oldest_ms) / 1000),
        states=status["states"],
        minutes=[_slice(one) for one in chart],
        hour=_slice(fold(chart, size=len(chart))[0]),
        per_minute=ended_per_minute(chart[-RATE_MINUTES:], now=now_ms / 1000),
        today=await _today(desk, now_ms),
        budgets=budgets,
        newest=await read_newest(desk, most=NEWEST),
    )


async def read_budgets(desk: Desk) -> list[BudgetLine]:
    """Every budget of the rules in force.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    windows = desk.windows(desk.now_ms())
    spent = await desk.redis.mget([one.key for one in windows]) if windows else []
    return [
        BudgetLine(
            words=one.words,
            scope=one.scope,
            period=one.period,
            limit=one.limit,
            spent=int(count or 0),
            ends_ms=one.ends_ms,
        )
        for one, count in zip(windows, spent, strict=True)
    ]


async def read_newest(desk: Desk, *, most: int) -> list[Result]:
    """The newest results, newest first; fewer where other facts crowd them out.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    ended = await _newest_ended(desk.redis, most=most)
    entries = {one.id: one for one in await desk.ledger.entries(sorted({fact["id"] for fact in ended}))}
    found = []
    for fact in ended:
        entry = entries.get(fact["id"])
        holds = entry is not None and entry.state == fact["state"] and entry.value is not None
        found.append(
            Result(
                id=fact["id"],
                object_id=fact["object"],
                field=fact.get("field", ""),
                rule=entry.rule if entry is not None else "",
                state=fact["state"],
                at_ms=fact["at"],
                value=value_words(entry.value) if holds and entry is not None else "",
                reason=fact.get("reason", ""),
            )
        )
    return found


async def _newest_ended(redis: Redis, *, most: int) -> list[dict[str, Any]]:
    """The newest facts that are results."""
    ended: list[dict[str, Any]] = []
    before = "+"
    for count in LOOKED_AT:
        rows = await redis.xrevrange(keys.HISTORY, max=before, count=count)
        facts = (msgspec.json.decode(raw_hash(fields or {})[b"fact"]) for _, fields in rows or ())
        ended += [fact for fact in facts if State(fact["state"]).final]
        if not rows or len(ended) >= most:
            break
        before = f"({text(rows[-1][0])}"
    return ended[:most]


def value_words(value: Any) -> str:
    """A field's value for people: texts as they are, several with commas."""
    if isinstance(value, list):
        return ", ".join(map(value_words, value))
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _work(status: dict[str, Any], *, oldest_seconds: float) -> Work:
    states, queues = status["states"], status["queues"]
    return Work(
        calling=states[State.CALLING],
        planned=states[State.PLANNED],
        waiting=states[State.WAITING],
        queued={name: sizes["queued"] for name, sizes in queues.items()},
        scheduled={name: sizes["scheduled"] for name, sizes in queues.items()},
        workers=len(status["workers"]),
        oldest_seconds=oldest_seconds,
    )


def _slice(minute: Minute) -> Slice:
    return Slice(
        start_seconds=minute.start_seconds,
        outcomes=dict(minute.outcomes),
        planned=minute.planned,
        events=dict(minute.events),
        paid=minute.paid,
        p50_seconds=minute.filled_seconds(0.5),
        p95_seconds=minute.filled_seconds(0.95),
    )


async def _today(desk: Desk, now_ms: int) -> Money:
    today = dt.datetime.fromtimestamp(now_ms / 1000, desk.zone).date()
    lines = sum_by(await read_costs(desk.redis, [today]), "day")
    day = today.isoformat()
    return Money(day=day, **lines.get(day, dict.fromkeys(METRICS, 0)))
