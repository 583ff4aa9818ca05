"""How things stand: states, queues, workers and brakes, as plain data for commands and the dashboard."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from service import jobs
from service.brakes import PERSON
from service.held import count_held
from service.readiness import (
    alive_workers,
    breaker_words,
    count_dead,
    count_quarantined,
    dead_words,
    quarantine_words,
)
from service.rules_in_force import disagreement, file_problem, rules_in_force

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.brakes import Halt
    from service.ledger import Ledger


async def read_status(ledger: Ledger) -> dict[str, Any]:
    """States, queues, workers and what keeps calls from leaving, as plain data."""
    counts = await ledger.counts()
    async with ledger.redis.pipeline(transaction=False) as pipeline:
        for queue in jobs.QUEUES:
            pipeline.llen(jobs.queue_key(queue))
            pipeline.zcard(jobs.scheduled_key(queue))
        sizes = await pipeline.execute()
    halt: Halt | None = await ledger.brakes.halted()
    held = await count_held(ledger.redis)
    rules = await rules_in_force(ledger.redis)
    return {
        "states": {str(state): count for state, count in counts.items()},
        "queues": {
            queue: {"queued": sizes[2 * at], "scheduled": sizes[2 * at + 1]}
            for at, queue in enumerate(jobs.QUEUES)
        },
        "workers": await alive_workers(ledger),
        "halted": None
        if halt is None
        else {"reason": halt.reason, "kind": halt.kind, "since_ms": halt.since_ms},
        "burst_guard": {"held": held, "credits_at_most": held},
        "dead_letters": await count_dead(ledger),
        "quarantined": await count_quarantined(ledger),
        "breakers": [
            {
                "field": one.field_name,
                "field_id": one.field_id,
                "rule": one.rule,
                "timeouts": one.timeouts,
                "until_ms": one.until_ms,
                "hint": breaker_words(one),
            }
            for one in await ledger.brakes.open_breakers()
        ],
        "rules": {
            "processes": [
                {"process": one.process, "digest": one.digest, "read_at_ms": one.read_at_ms} for one in rules
            ],
            "problem": file_problem(rules) or disagreement(rules) or None,
        },
    }


def status_warnings(status: dict[str, Any]) -> Iterator[str]:
    """What keeps calls from leaving or needs a person, a sentence each."""
    halt = status["halted"]
    if halt is not None:
        whose = "by a person" if halt["kind"] == PERSON else "by itself; a call is tried every few minutes"
        yield f"All calls are halted since {moment(halt['since_ms'])} UTC, {whose}: {halt['reason']}"
    held = status["burst_guard"]["held"]
    if held:
        yield f"The burst guard holds {held}, at most as many credits: close-enrich release"
    for one in status["breakers"]:
        yield one["hint"]
    if status["dead_letters"]:
        yield dead_words(status["dead_letters"])
    if status["quarantined"]:
        yield quarantine_words(status["quarantined"])
    if status["rules"]["problem"]:
        yield f"Rules file: {status['rules']['problem']}"


def moment(at_ms: int) -> str:
    """A moment for people, UTC, to the tenth of a second."""
    at = dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC)
    return at.strftime("%Y-%m-%d %H:%M:%S.") + str(at.microsecond // 100_000)
