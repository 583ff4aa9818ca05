"""What a scrape tells, read from Redis: a few dozen commands, however much work there is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import msgspec

from service import jobs, keys
from service.meter import STALE_SECONDS, Now
from service.metrics_catalogue import OTHER, decode_series
from service.queue_age import oldest_due_ms
from service.readiness import alive_workers
from service.redis_text import raw_hash, text
from service.rules_in_force import rules_in_force

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redis.asyncio import Redis

    from service.ledger import Ledger
    from service.metrics_catalogue import Series

MOST_HOSTS = 100
"""So many roles and hosts are named at most, those with a problem first."""


class BudgetWindow(Protocol):
    """One ceiling as it stands at a moment; see `workers.budget.Window`."""

    @property
    def scope(self) -> str:
        """`all`, or `rule:` and the rule's name."""

    @property
    def period(self) -> str:
        """`day` or `month`."""

    @property
    def key(self) -> str:
        """Of its counter in Redis."""

    @property
    def limit(self) -> int:
        """Credits it allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A budget's limit, and what is spent or reserved of it, in credits."""

    scope: str
    period: str
    limit: int
    spent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """One queue: jobs that can run, jobs for later, and for how long the oldest that could run has waited."""

    queued: int
    scheduled: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterState:
    """The pace of one endpoint group, as workers share it.

    Attributes:
        calls_per_second: what was learned; None before the first answer of Close.
        waiting: calls that wait for their turn, in all processes.
        parked_seconds: for how long no call may leave; 0 where they may.
        refusals: 429s since the limiter began.
    """

    calls_per_second: float | None
    waiting: int
    parked_seconds: float
    refusals: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The service at one moment.

    Attributes:
        counted: what all processes have counted.
        entries: by state.
        queues: by RQ's name.
        backlog, workers, breakers, held, dead_letters, quarantined, missed: how many.
        halted: whether all calls are.
        budgets: of the rules in force.
        limiters: by endpoint group, those that workers use now.
        subscription_healthy: None where nobody has looked lately.
        rules_problems: by role and host, whether a process there cannot use its rules file as it is.
    """

    counted: Mapping[Series, int] = field(default_factory=dict)
    entries: Mapping[str, int] = field(default_factory=dict)
    queues: Mapping[str, QueueState] = field(default_factory=dict)
    backlog: int = 0
    workers: int = 0
    halted: bool = False
    breakers: int = 0
    held: int = 0
    dead_letters: int = 0
    quarantined: int = 0
    missed: int = 0
    budgets: tuple[Budget, ...] = ()
    limiters: Mapping[str, LimiterState] = field(default_factory=dict)
    subscription_healthy: bool | None = None
    rules_problems: Mapping[tuple[str, str], bool] = field(default_factory=dict)


async def read_snapshot(ledger: Ledger, *, windows: Sequence[BudgetWindow]) -> Snapshot:
    """Look once.

    Args:
        ledger: where everything is.
        windows: the budgets to look at.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    redis: Redis = ledger.redis
    async with redis.pipeline(transaction=False) as pipeline:
        pipeline.time()
        pipeline.hgetall(keys.METRICS)
        pipeline.llen(keys.BACKLOG)
        pipeline.exists(keys.HALT)
        pipeline.scard(keys.BREAKERS)
        pipeline.zcard(keys.HELD)
        pipeline.zcard(keys.ATTENTION)
        pipeline.xlen(keys.QUARANTINE)
        pipeline.get(keys.MISSED)
        pipeline.hget(keys.WEBHOOK, "problem")
        pipeline.hgetall(keys.METRICS_NOW)
        for window in windows:
            pipeline.get(window.key)
        (
            (seconds, microseconds),
            counted,
            backlog,
            halted,
            breakers,
            held,
            dead_letters,
            quarantined,
            missed,
            problem,
            told,
            *spent,
        ) = await pipeline.execute()
    now_ms = int(seconds) * 1000 + int(microseconds) // 1000
    return Snapshot(
        counted=_counted(raw_hash(counted)),
        entries={str(state): count for state, count in (await ledger.counts()).items()},
        queues=await _queues(redis, now_ms=now_ms),
        backlog=backlog,
        workers=len(await alive_workers(ledger)),
        halted=bool(halted),
        breakers=breakers,
        held=held,
        dead_letters=dead_letters,
        quarantined=quarantined,
        missed=int(missed or 0),
        budgets=tuple(
            Budget(scope=one.scope, period=one.period, limit=one.limit, spent=int(count or 0))
            for one, count in zip(windows, spent, strict=True)
        ),
        limiters=await _limiters(redis, _told(raw_hash(told), now_ms=now_ms)),
        subscription_healthy=None if problem is None else text(problem) == "",
        rules_problems=await _rules_problems(redis),
    )


def _counted(raw: Mapping[bytes, bytes]) -> dict[Series, int]:
    found = ((decode_series(name), int(count)) for name, count in raw.items())
    return {series: count for series, count in found if series is not None}


async def _queues(redis: Redis, *, now_ms: int) -> dict[str, QueueState]:
    found = {}
    for queue in jobs.QUEUES:
        async with redis.pipeline(transaction=False) as pipeline:
            pipeline.llen(jobs.queue_key(queue))
            pipeline.zcard(jobs.scheduled_key(queue))
            queued, scheduled = await pipeline.execute()
        oldest_ms = await oldest_due_ms(redis, queue, now_ms=now_ms)
        oldest_seconds = 0.0 if oldest_ms is None else (now_ms - oldest_ms) / 1000
        found[queue] = QueueState(queued=queued, scheduled=scheduled, oldest_seconds=oldest_seconds)
    return found


def _told(raw: Mapping[bytes, bytes], *, now_ms: int) -> list[Now]:
    """What living processes have told of themselves; what another version may have written is left out."""
    found = []
    for said in raw.values():
        at_ms, _, words = said.partition(b" ")
        try:
            if now_ms - int(at_ms) <= STALE_SECONDS * 1000:
                found.append(msgspec.json.decode(words, type=Now))
        except (ValueError, msgspec.MsgspecError):
            continue
    return found


async def _limiters(redis: Redis, told: Sequence[Now]) -> dict[str, LimiterState]:
    waiting: Counter[str] = Counter()
    limiters: dict[str, set[str]] = {}
    for one in told:
        waiting.update(one.waiting)
        for group, key in one.limiters.items():
            limiters.setdefault(group, set()).add(key)
    found = {}
    for group, names in sorted(limiters.items()):
        async with redis.pipeline(transaction=False) as pipeline:
            pipeline.pttl(keys.park(group))
            for name in sorted(names):
                pipeline.hmget(name, "rate", "refusals")
            parked_ms, *rows = await pipeline.execute()
        # workers with different API keys have a limiter each
        rates = [float(rate) for rate, _ in rows if rate is not None]
        found[group] = LimiterState(
            calls_per_second=sum(rates) if rates else None,
            waiting=waiting[group],
            parked_seconds=max(0, parked_ms) / 1000,
            refusals=sum(int(refusals or 0) for _, refusals in rows),
        )
    return found


async def _rules_problems(redis: Redis) -> dict[tuple[str, str], bool]:
    """By role and host, not by process: a series for every process id would be a new one at every restart."""
    found: dict[tuple[str, str], bool] = {}
    for one in await rules_in_force(redis):
        place = (one.role or OTHER, one.host or OTHER)
        found[place] = found.get(place, False) or bool(one.problem)
    named = sorted(found, key=lambda place: (not found[place], place))
    return {place: found[place] for place in named[:MOST_HOSTS]}
