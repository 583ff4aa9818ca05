"""What the Overview and the frame show: read from Redis in a bounded number of commands and rows."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import msgspec

from service import keys
from service.charts import fold, minutes
from service.costs import METRICS, read_costs, sum_by
from service.dashboard.health import Health, health_of
from service.enrichment import State
from service.jobs import LIVE_QUEUE
from service.overview import read_status
from service.queue_age import oldest_due_ms
from service.readiness import readiness
from service.redis_text import raw_hash

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from service.charts import Minute
    from service.dashboard.desk import Desk

CHART_MINUTES = 60
RATE_MINUTES = 5
"""The pace that is shown is that of the last whole minutes."""

NEWEST = 12
LOOKED_AT = 60
"""Among so many newest facts the newest results are looked for; a result follows one or two other facts."""


class Attention(msgspec.Struct, frozen=True, kw_only=True):
    """How much waits for a person.

    Attributes:
        dead_letters: enrichments that ended without an answer, at most.
        held: enrichments that the burst guard holds.
        quarantined: signed deliveries that could not be read.
        breakers: fields that are left alone for now.
        halted: whether no call leaves at all.
    """

    dead_letters: int
    held: int
    quarantined: int
    breakers: int
    halted: bool

    @property
    def count(self) -> int:
        """All of them together, for a badge."""
        return self.dead_letters + self.held + self.quarantined + self.breakers + self.halted


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What is going on at this moment.

    Attributes:
        calling: calls to Close in flight.
        planned: enrichments that a worker may take.
        waiting: enrichments that wait for something: to settle, for the pace, a budget, another rule.
        queued: jobs by queue.
        scheduled: jobs for later by queue.
        workers: how many are alive.
        oldest_seconds: for how long the oldest live job that could run has waited for a worker.
    """

    calling: int
    planned: int
    waiting: int
    queued: dict[str, int]
    scheduled: dict[str, int]
    workers: int
    oldest_seconds: float


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """A minute, or several together.

    Attributes:
        start_seconds: when it began, Unix seconds.
        outcomes: enrichments that ended, by final state.
        planned: enrichments planned.
        events: deliveries by what became of them.
        paid: calls that Close may have charged for.
        p50_seconds: in how many seconds half of the live enrichments were filled; null where none was.
        p95_seconds: the same of 19 in 20.
    """

    start_seconds: int
    outcomes: dict[str, int]
    planned: int
    events: dict[str, int]
    paid: int
    p50_seconds: float | None
    p95_seconds: float | None


class Money(msgspec.Struct, frozen=True, kw_only=True):
    """Credits of a day.

    Attributes:
        day: in the time zone of budgets.
        calls: made.
        paid: that may have been charged.
        found: values found.
        empty: nothing found.
        skipped: saved, as the field was filled or the rule did not want it.
        confirmed: saved, as an unclear call had run.
        duplicates: saved, as the same field was wanted again.
    """

    day: str
    calls: int
    paid: int
    found: int
    empty: int
    skipped: int
    confirmed: int
    duplicates: int

    @property
    def saved(self) -> int:
        """Calls that were not made."""
        return self.skipped + self.confirmed + self.duplicates


class BudgetLine(msgspec.Struct, frozen=True, kw_only=True):
    """A budget as it stands.

    Attributes:
        words: what it allows, for people.
        scope: `all`, or `rule:` and the rule's name.
        period: `day` or `month`.
        limit: credits that it allows.
        spent: spent or reserved of them.
        ends_ms: when the next window begins, Unix milliseconds.
    """

    words: str
    scope: str
    period: str
    limit: int
    spent: int
    ends_ms: int


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One enrichment that has just ended.

    Attributes:
        id: the enrichment.
        object_id: the lead or contact.
        field: the field's name.
        rule: the rule that planned it; "" where the history does not say.
        state: how it ended.
        at_ms: when, Unix milliseconds.
        value: what the field holds by it now, for people; "" for nothing.
        reason: why it ended so.
    """

    id: str
    object_id: str
    field: str
    rule: str
    state: str
    at_ms: int
    value: str
    reason: str


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """The whole service at one glance.

    Attributes:
        at_ms: when it was looked at, Unix milliseconds.
        health: whether all is well, in words.
        attention: what waits for a person.
        work: what is going on.
        states: enrichments by state, of all that are remembered.
        minutes: the last hour minute by minute, oldest first; the last one is not over yet.
        hour: the last hour together.
        per_minute: enrichments that ended per minute lately.
        today: credits of today.
        budgets: as they stand.
        newest: results, newest first.
    """

    at_ms: int
    health: Health
    attention: Attention
    work: Work
    states: dict[str, int]
    minutes: list[Slice]
    hour: Slice
    per_minute: float
    today: Money
    budgets: list[BudgetLine]
    newest: list[Result]


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
    whole = chart[-RATE_MINUTES - 1 : -1]
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
        per_minute=sum(sum(one.outcomes.values()) for one in whole) / RATE_MINUTES,
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
    rows = await desk.redis.xrevrange(keys.HISTORY, count=LOOKED_AT)
    facts: list[dict[str, Any]] = [
        msgspec.json.decode(raw_hash(fields or {})[b"fact"]) for _, fields in rows or ()
    ]
    ended = [fact for fact in facts if State(fact["state"]).final][:most]
    entries = {one.id: one for one in await desk.ledger.entries(sorted({fact["id"] for fact in ended}))}
    found = []
    for fact in ended:
        entry = entries.get(fact["id"])
        holds = entry is not None and entry.state == fact["state"] and entry.value is not None
        found.append(
            Result(
                id=fact["id"],
                object_id=fact["object"],
                field=fact["field"],
                rule=entry.rule if entry is not None else "",
                state=fact["state"],
                at_ms=fact["at"],
                value=value_words(entry.value) if holds and entry is not None else "",
                reason=fact.get("reason", ""),
            )
        )
    return found


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
