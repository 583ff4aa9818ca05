"""Making a worker's tools from settings, and running it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from typing import TYPE_CHECKING

from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError

from service import keys
from service.accept import Accepter
from service.hangup import hangup_handler
from service.ledger import Ledger
from service.log import get_logger
from service.meter import LAST_FLUSH_SECONDS, Meter, Now
from service.redis_client import blocking_redis_client, redis_client
from service.redis_connections import trouble
from service.redis_health import HealthWatch
from service.schema_cache import SchemaCache
from service.since import note_since
from service.tasks import cancel_all
from service.tracing import start_tracing
from workers.alerter import make_alerter
from workers.close_client import close_api, key_name
from workers.housekeeping import Housekeeper
from workers.learner import Learner, following, schema_fetcher
from workers.log_reader import LogReader
from workers.reconcile import Reconciler
from workers.reconcile_loop import ReconcileLoop
from workers.records import RecordReader
from workers.subscription import needed_events
from workers.throttle import Ceiling, Throttle
from workers.tools import ENRICH_GROUP, READ_GROUP, Tools
from workers.watcher import Watcher
from workers.webhooks import Webhooks
from workers.worker import REDIS_PAUSE_SECONDS, EnrichmentWorker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    import redis
    from structlog.typing import FilteringBoundLogger

    from service.rules import RuleBook
    from service.settings import Settings

REDIS_PATIENCE = 30
"""Retries of one Redis command at up to 2 s each: a restart or a failover is waited out by work in hand."""

REDIS_CONNECTIONS = 16


@contextlib.asynccontextmanager
async def open_tools(
    settings: Settings, rulebook: RuleBook, *, worker: str
) -> AsyncIterator[tuple[Tools, Learner]]:
    """The tools for one process, closed when it ends.

    Args:
        settings: with `REDIS_URL` and `CLOSE_API_KEY`.
        rulebook: the rules.
        worker: this process's name in the ledger.
    """
    if settings.redis_url is None:
        raise ValueError("REDIS_URL is not set")
    log = get_logger("worker")
    # hundreds of jobs share a few connections and queue for them: Redis answers faster than Close
    connection = redis_client(
        settings.redis_url.reveal(),
        most_connections=REDIS_CONNECTIONS,
        retry=AsyncRetry(ExponentialBackoff(cap=2.0, base=0.05), REDIS_PATIENCE),
    )
    api = close_api(settings)
    tracing = start_tracing(settings.tracing)
    ceiling = Ceiling(calls_per_second=settings.max_calls_per_second, in_flight=settings.max_in_flight)

    def throttle(group: str, ceiling: Ceiling) -> Throttle:
        limiter = keys.limiter(key_name(settings), group)
        return Throttle(connection, limiter=limiter, group=group, ceiling=ceiling)

    enriching, reading = throttle(ENRICH_GROUP, ceiling), throttle(READ_GROUP, Ceiling())
    meter = Meter(
        connection, clock=time.time, log=log, now=lambda: _now({ENRICH_GROUP: enriching, READ_GROUP: reading})
    )
    metering = asyncio.create_task(meter.run(), name="adding up metrics")
    try:
        learner = Learner(SchemaCache(connection, fetch=schema_fetcher(api), log=log), rulebook, log=log)
        await learner.learn_at_start()
        yield (
            Tools(
                ledger=Ledger(
                    connection, zone=settings.budget_timezone, wait_replicas=settings.redis_wait_replicas
                ),
                api=api,
                records=RecordReader(api, pace=reading, clock=time.monotonic),
                pace=enriching,
                zone=settings.budget_timezone,
                own_api_key_id=settings.close_api_key_id,
                knowledge=learner.current,
                random=random.SystemRandom(),
                now_ms=lambda: time.time_ns() // 1_000_000,
                log=log,
                meter=meter,
                worker=worker,
                tracing=tracing,
            ),
            learner,
        )
    finally:
        await cancel_all([metering], again_seconds=LAST_FLUSH_SECONDS)
        await api.aclose()
        await connection.aclose()
        await tracing.aclose()


def _now(paces: dict[str, Throttle]) -> Now:
    """What this process tells of itself for metrics."""
    return Now(
        waiting={group: pace.waiting for group, pace in paces.items()},
        limiters={group: pace.limiter for group, pace in paces.items()},
    )


def make_reconciler(settings: Settings, tools: Tools) -> Reconciler:
    """What walks Close's event log, with a worker's tools."""
    connection, log = tools.ledger.redis, get_logger("reconcile")
    limiter = keys.limiter(key_name(settings), READ_GROUP)
    return Reconciler(
        connection,
        reader=LogReader(
            tools.api,
            pace=Throttle(connection, limiter=limiter, group=READ_GROUP, ceiling=Ceiling()),
            brakes=tools.ledger.brakes,
            random=tools.random,
            pause=asyncio.sleep,
        ),
        accepter=Accepter(
            connection,
            zone=tools.zone,
            wait_replicas=settings.redis_wait_replicas,
            meter=tools.meter,
            tracing=tools.tracing,
        ),
        knowledge=tools.knowledge,
        own_api_key_id=tools.own_api_key_id,
        now_ms=tools.now_ms,
        log=log,
    )


def reconciling(settings: Settings, tools: Tools) -> list[Awaitable[None]]:
    """The endless walks through Close's event log; none where `RECONCILE_EVERY` is off."""
    if settings.reconcile_every_seconds is None:
        return []
    loop = ReconcileLoop(
        tools.ledger.redis,
        reconciler=make_reconciler(settings, tools),
        ready=lambda: tools.knowledge().complete,
        worker=tools.worker,
        every_seconds=settings.reconcile_every_seconds,
        log=get_logger("reconcile"),
    )
    return [loop.run()]


def watching(settings: Settings, tools: Tools) -> list[Awaitable[None]]:
    """The endless looks after the webhook subscription; none where `PUBLIC_URL` is unset."""
    if settings.public_url is None:
        return []
    connection, log = tools.ledger.redis, get_logger("webhook")
    watcher = Watcher(
        Webhooks(tools.api, connection, log=log),
        connection,
        url=settings.public_url,
        events=lambda: needed_events(tools.knowledge().rulebook),
        log=log,
    )
    return [watcher.run()]


def blocking_redis(settings: Settings) -> redis.Redis:
    """The client for RQ's bookkeeping.

    Raises:
        ValueError: `REDIS_URL` is not set.
    """
    if settings.redis_url is None:
        raise ValueError("REDIS_URL is not set")
    return blocking_redis_client(settings.redis_url.reveal())


async def redis_answers(connection: redis.Redis, log: FilteringBoundLogger) -> None:
    """Return once Redis answers: a worker may be started before its Redis."""
    while True:
        try:
            await asyncio.to_thread(connection.ping)
        except RedisError as error:
            log.warning("waits for Redis", error=type(error).__name__, problem=trouble(error))
            await asyncio.sleep(REDIS_PAUSE_SECONDS)
        else:
            return


async def run_worker(settings: Settings, rulebook: RuleBook, *, name: str | None = None) -> None:
    """Run a worker until it is told to stop; it follows the rules file."""
    connection = blocking_redis(settings)
    await redis_answers(connection, get_logger("worker"))
    worker = EnrichmentWorker(
        connection=connection,
        concurrency=settings.worker_concurrency,
        grace_seconds=settings.shutdown_grace_seconds,
        name=name,
    )
    async with open_tools(settings, rulebook, worker=worker.name) as (tools, learner):
        await note_since(tools.ledger.redis)
        housekeeper = Housekeeper(
            tools.ledger, worker=worker.name, clock=time.monotonic, log=get_logger("housekeeping")
        )
        reload, publisher = following(settings, rulebook, learner, redis=tools.ledger.redis, role="worker")
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hangup_handler(reload.soon))

        alerter = make_alerter(
            settings,
            tools.ledger,
            rulebook=lambda: tools.knowledge().rulebook,
            owner=worker.name,
            log=get_logger("alerts"),
        )

        def alongside() -> list[Awaitable[None]]:
            return [
                housekeeper.run(),
                learner.run(),
                *reconciling(settings, tools),
                *watching(settings, tools),
                alerter.run(),
                reload.run(),
                publisher.run(),
                HealthWatch(tools.ledger.redis, log=tools.log).run(),
            ]

        tools.log.info(
            "worker started", worker=worker.name, pid=os.getpid(), concurrency=settings.worker_concurrency
        )
        await worker.serve(tools, alongside=alongside)
        tools.log.info("worker stopped", worker=worker.name)
