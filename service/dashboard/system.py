"""What the System page shows, read from Redis in a bounded number of commands."""

from __future__ import annotations

import datetime as dt
import platform
from typing import TYPE_CHECKING, Any

import msgspec
from rq.worker_registration import REDIS_WORKER_KEYS

from service import jobs, keys
from service.dashboard.glance import BudgetLine  # noqa: TC001  msgspec reads the annotations
from service.dashboard.reading import read_budgets
from service.metrics_reading import read_snapshot
from service.package_version import package_version
from service.redis_health import redis_health
from service.redis_text import raw_hash, text, texts
from service.rules_in_force import disagreement, file_problem, rules_in_force

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis.asyncio import Redis

    from service.dashboard.desk import Desk

MOST_WORKERS = 200
"""So many are named; any more are only counted."""

_WORKER_FIELDS = (
    "queues",
    "death",
    "hostname",
    "pid",
    "birth",
    "last_heartbeat",
    "successful_job_count",
    "state",
)
_OBJECTS, _ACTIONS = ("lead", "contact"), ("created", "updated", "merged", "deleted")


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """A worker process that is alive.

    Attributes:
        name: RQ's name of it.
        host: where it runs.
        pid: its process id there; "" where it does not say.
        started_ms: Unix milliseconds; null where it does not say.
        heartbeat_ms: when it was last heard of; null where it does not say.
        jobs_done: since it started.
    """

    name: str
    host: str
    pid: str
    started_ms: int | None
    heartbeat_ms: int | None
    jobs_done: int


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """A queue.

    Attributes:
        name: RQ's name of it.
        queued: jobs that a worker may take.
        scheduled: jobs for later.
        oldest_seconds: for how long the oldest that could run has waited.
    """

    name: str
    queued: int
    scheduled: int
    oldest_seconds: float


class Limiter(msgspec.Struct, frozen=True, kw_only=True):
    """The pace of one group of Close's endpoints, shared by all workers.

    Attributes:
        group: such as `POST enrich_field`.
        calls_per_second: as learned from Close's headers; null before its first answer.
        waiting: calls that wait for their turn.
        parked_seconds: for how long no call may leave.
        refusals: answers 429 since the limiter began.
    """

    group: str
    calls_per_second: float | None
    waiting: int
    parked_seconds: float
    refusals: int


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """The webhook subscription, as a worker's last look found it.

    Attributes:
        id: Close's id of it; "" where there is none.
        problem: what is wrong with it; "" for nothing.
    """

    id: str
    problem: str


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Up to which moment Close's event log has been read of one kind of event.

    Attributes:
        kind: such as `lead.created`.
        until: as Close writes moments.
    """

    kind: str
    until: str


class EventLog(msgspec.Struct, frozen=True, kw_only=True):
    """Reconciliation.

    Attributes:
        marks: how far it has got.
        next_seconds: when workers look again; 0 for at once, null where nobody has lately.
        missed: events that no delivery had brought.
        backlog: events that wait for Close's fields to be known.
    """

    marks: list[Mark]
    next_seconds: float | None
    missed: int
    backlog: int


class RulesOf(msgspec.Struct, frozen=True, kw_only=True):
    """Which release and which rules one process runs.

    Attributes:
        process: in words.
        version: of the package that it runs; "" where it does not say.
        digest: names the version of the file.
        read_at_ms: when it read that.
        problem: why it cannot use the file as it is now; "" where it can.
    """

    process: str
    version: str
    digest: str
    read_at_ms: int
    problem: str


class RedisState(msgspec.Struct, frozen=True, kw_only=True):
    """The Redis server.

    Attributes:
        server: `redis`, `valkey` or another.
        version: "" where it does not say.
        problems: what can lose work.
        notes: what is worth knowing.
        used_bytes: memory in use; null where it does not say.
        limit_bytes: `maxmemory`; 0 for none, null where it does not say.
        history: facts that are kept.
    """

    server: str
    version: str
    problems: list[str]
    notes: list[str]
    used_bytes: int | None
    limit_bytes: int | None
    history: int


class System(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of the service.

    Attributes:
        workers: those alive, at most 200.
        workers_alive: how many.
        queues: ours.
        limiters: that workers use now.
        subscription: null where no worker looks after one, or none has lately.
        event_log: reconciliation.
        rules: by process.
        rules_problem: in a sentence; "" for none.
        redis: the server.
        budgets: as they stand.
        version: of this package, in the process that answers.
        python: the version it runs on.
    """

    workers: list[Worker]
    workers_alive: int
    queues: list[Queue]
    limiters: list[Limiter]
    subscription: Subscription | None
    event_log: EventLog
    rules: list[RulesOf]
    rules_problem: str
    redis: RedisState
    budgets: list[BudgetLine]
    version: str
    python: str


async def read_system(desk: Desk) -> System:
    """Look once.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    snapshot = await read_snapshot(desk.ledger, windows=())
    rules = await rules_in_force(desk.redis)
    return System(
        workers=await _workers(desk.redis),
        workers_alive=snapshot.workers,
        queues=[
            Queue(
                name=name,
                queued=one.queued,
                scheduled=one.scheduled,
                oldest_seconds=one.oldest_seconds,
            )
            for name, one in snapshot.queues.items()
        ],
        limiters=[
            Limiter(
                group=group,
                calls_per_second=one.calls_per_second,
                waiting=one.waiting,
                parked_seconds=one.parked_seconds,
                refusals=one.refusals,
            )
            for group, one in snapshot.limiters.items()
        ],
        subscription=await _subscription(desk.redis),
        event_log=await _event_log(desk.redis, missed=snapshot.missed, backlog=snapshot.backlog),
        rules=[
            RulesOf(
                process=one.process,
                version=one.version,
                digest=one.digest,
                read_at_ms=one.read_at_ms,
                problem=one.problem,
            )
            for one in rules
        ],
        rules_problem=file_problem(rules) or disagreement(rules),
        redis=await _redis(desk.redis),
        budgets=await read_budgets(desk),
        version=package_version(),
        python=platform.python_version(),
    )


async def _workers(redis: Redis) -> list[Worker]:
    names = sorted(texts(await redis.smembers(REDIS_WORKER_KEYS)))[:MOST_WORKERS]
    async with redis.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.hmget(name, *_WORKER_FIELDS)
        rows = await pipeline.execute() if names else []
    found = []
    for name, row in zip(names, rows, strict=True):
        facts = {field: text(value) for field, value in zip(_WORKER_FIELDS, row, strict=True) if value}
        if "death" not in facts and set(jobs.QUEUES) & set(facts.get("queues", "").split(",")):
            found.append(_worker(name.removeprefix("rq:worker:"), facts))
    return found


def _worker(name: str, facts: Mapping[str, str]) -> Worker:
    return Worker(
        name=name,
        host=facts.get("hostname", ""),
        pid=facts.get("pid", ""),
        started_ms=_unix_ms(facts.get("birth")),
        heartbeat_ms=_unix_ms(facts.get("last_heartbeat")),
        jobs_done=int(facts.get("successful_job_count", 0)),
    )


def _unix_ms(stamp: str | None) -> int | None:
    """A moment as RQ writes it; None for anything else."""
    try:
        return round(dt.datetime.fromisoformat(stamp or "").timestamp() * 1000)
    except ValueError:
        return None


async def _subscription(redis: Redis) -> Subscription | None:
    raw = raw_hash(await redis.hgetall(keys.WEBHOOK))
    if not raw:
        return None
    return Subscription(id=raw.get(b"subscription", b"").decode(), problem=raw.get(b"problem", b"").decode())


async def _event_log(redis: Redis, *, missed: int, backlog: int) -> EventLog:
    kinds = [(object_type, action) for object_type in _OBJECTS for action in _ACTIONS]
    marks = await redis.mget([keys.log_mark(*kind) for kind in kinds])
    async with redis.pipeline(transaction=False) as pipeline:
        pipeline.pttl(keys.RECONCILED)
        pipeline.exists(keys.RECONCILE_NOW)
        left_ms, now = await pipeline.execute()
    return EventLog(
        marks=[
            Mark(kind=".".join(kind), until=text(mark))
            for kind, mark in zip(kinds, marks, strict=True)
            if mark is not None
        ],
        next_seconds=0.0 if now else left_ms / 1000 if left_ms >= 0 else None,
        missed=missed,
        backlog=backlog,
    )


async def _redis(redis: Redis) -> RedisState:
    health = await redis_health(redis)
    memory: Mapping[str, Any] = await redis.info("memory") if health.readable else {}
    return RedisState(
        server=health.server_name,
        version=health.version,
        problems=list(health.problems),
        notes=list(health.notes),
        used_bytes=memory.get("used_memory"),
        limit_bytes=memory.get("maxmemory"),
        history=int(await redis.xlen(keys.HISTORY)),
    )
