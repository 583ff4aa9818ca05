"""Whether the receiver may be sent events, and what an operator should look at."""

from __future__ import annotations

import asyncio
import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from rq.worker_registration import REDIS_WORKER_KEYS

from service import jobs, keys
from service.held import count_held
from service.redis_text import text, texts
from service.rules_in_force import file_problem, rules_in_force

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.brakes import OpenBreaker
    from service.knowledge import Knowledge
    from service.ledger import Ledger

PATIENCE_SECONDS = 1.2
"""Redis is away if it takes longer: whoever probes gives up after a few seconds himself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Ready or not, and why.

    Attributes:
        problems: what makes it unfit to take events, by part: `redis`, `rules`.
        degraded: what needs attention although events are safe to take, by part.
    """

    problems: dict[str, str]
    degraded: dict[str, str]

    @property
    def status(self) -> int:
        """The HTTP status of `/readyz`."""
        return 503 if self.problems else 200

    def body(self, *, reasons: bool) -> dict[str, Any]:
        """The JSON of `/readyz`.

        Args:
            reasons: whether to say why: reasons name fields, processes and what people wrote.
        """
        if self.problems:
            told: dict[str, Any] = {"status": "unavailable", "problems": self.problems}
        else:
            told = {"status": "degraded" if self.degraded else "ready"}
        return {**told, "degraded": self.degraded} if reasons else {"status": told["status"]}


async def readiness(
    ledger: Ledger, knowledge: Knowledge, *, keyed: bool = True, redis_problems: Sequence[str] = ()
) -> Readiness:
    """Look at Redis, rules, workers, brakes, fields and the subscription.

    Raises nothing; answers while Redis hangs, too.

    Args:
        ledger: where everything is.
        knowledge: what is known at the moment.
        keyed: whether the receiver knows any signature key.
        redis_problems: what the last look at Redis's health found wrong; see `service.redis_health`.
    """
    problems: dict[str, str] = {}
    degraded: dict[str, str] = {}
    if not knowledge.rulebook.enabled:
        problems["rules"] = "no rule is enabled, so no event would lead to anything"
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await ledger.redis.ping()
            if not await alive_workers(ledger):
                degraded["workers"] = "no worker is alive: enrichments are accepted and wait"
            degraded |= await _brakes(ledger)
            degraded |= await _subscription(ledger)
            degraded |= await _left_to_people(ledger)
            degraded |= await _rules_file(ledger)
    except (RedisError, OSError) as error:
        problems["redis"] = f"Redis does not answer ({type(error).__name__})"
    if redis_problems:
        degraded["redis"] = "; ".join(redis_problems)
    if not keyed:
        degraded["signature key"] = "none is known yet: deliveries are answered 503 and come again"
    if not knowledge.complete:
        degraded["fields"] = "Close's custom fields are not known yet: events are kept and planned later"
    for one in knowledge.bindings.unbound if knowledge.complete else ():
        degraded[f"rule {one.rule.name}"] = one.problem
    return Readiness(problems=problems, degraded=degraded)


async def _brakes(ledger: Ledger) -> dict[str, str]:
    """What keeps calls from leaving, by part."""
    found: dict[str, str] = {}
    halt = await ledger.brakes.halted()
    if halt is not None:
        found["halted"] = halt.reason
    held = await count_held(ledger.redis)
    if held:
        found["held"] = f"{held} held by the burst guard, at most as many credits: close-enrich release"
    for one in await ledger.brakes.open_breakers():
        found[f"breaker {one.field_id}"] = breaker_words(one)
    return found


async def _left_to_people(ledger: Ledger) -> dict[str, str]:
    """What only a person can decide about."""
    dead, unread = await count_dead(ledger), await count_quarantined(ledger)
    return {
        **({"dead letters": dead_words(dead)} if dead else {}),
        **({"quarantine": quarantine_words(unread)} if unread else {}),
    }


async def count_dead(ledger: Ledger) -> int:
    """How many enrichments ended without an answer: at most so many, for some may have expired since."""
    return int(await ledger.redis.zcard(keys.ATTENTION))


async def count_quarantined(ledger: Ledger) -> int:
    """How many signed deliveries are kept because they could not be read."""
    return int(await ledger.redis.xlen(keys.QUARANTINE))


def dead_words(count: int) -> str:
    """What dead letters mean, and where to look at them."""
    return f"{count} enrichment{'' if count == 1 else 's'} ended without an answer: close-enrich dead list"


def quarantine_words(count: int) -> str:
    """What quarantined deliveries mean, and where to look at them."""
    several = f"{count} signed deliver{'y' if count == 1 else 'ies'}"
    return f"{several} could not be read: close-enrich quarantine list"


async def _subscription(ledger: Ledger) -> dict[str, str]:
    """What the last look at the webhook subscription found wrong with it."""
    problem = await ledger.redis.hget(keys.WEBHOOK, "problem")
    return {"subscription": text(problem)} if problem else {}


async def _rules_file(ledger: Ledger) -> dict[str, str]:
    """Which process cannot use the rules file as it is now, this one or another."""
    problem = file_problem(await rules_in_force(ledger.redis))
    return {"rules file": problem} if problem else {}


def breaker_words(breaker: OpenBreaker) -> str:
    """What an open breaker means, and what a person can do about it (Close's own advice on timeouts)."""
    until = dt.datetime.fromtimestamp(breaker.until_ms / 1000, dt.UTC)
    return (
        f"{breaker.field_name} is not called: {breaker.timeouts} calls in a row timed out. One call is tried "
        f"from {until:%Y-%m-%d %H:%M:%S} UTC on. Simplify the field's guidance in Close"
    )


async def alive_workers(ledger: Ledger) -> list[str]:
    """The names of the workers whose heartbeat RQ still believes in."""
    worker_keys = sorted(texts(await ledger.redis.smembers(REDIS_WORKER_KEYS)))
    if not worker_keys:
        return []
    async with ledger.redis.pipeline(transaction=False) as pipeline:
        for key in worker_keys:
            pipeline.hmget(key, "queues", "death")
        rows = await pipeline.execute()
    ours = set(jobs.QUEUES)
    return [
        key.removeprefix("rq:worker:")
        for key, (queues, death) in zip(worker_keys, rows, strict=True)
        if queues is not None and death is None and ours & set(queues.decode().split(","))
    ]
