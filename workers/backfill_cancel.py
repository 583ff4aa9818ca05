"""Dropping what a backfill has planned and no worker has begun."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from service.enrichment import State
from service.ledger import Claim
from service.transitions import Postponement, Settlement
from workers.backfill_match import event_id
from workers.backfill_run import Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.enrichment import Entry
    from service.ledger import Ledger
    from workers.backfill_run import Candidate, Known, Run, RunStore

CANCELLED = "the backfill was cancelled"
HOLDER = "backfill/cancel"
AT_ONCE = 16
"""Enrichments dropped at the same time: each takes a connection."""


async def cancel(store: RunStore, ledger: Ledger, known: Known) -> tuple[Run, int]:
    """End a backfill: what has begun goes on, the rest is skipped.

    Returns:
        The run as it is then, and how many enrichments were dropped.

    Raises:
        redis.RedisError: Redis is away; what was dropped stays dropped, and the same again drops the rest.
    """
    if known.run.stage is Stage.ENDED:
        return known.run, 0
    while not known.run.stage.over:
        after = replace(known.run, stage=Stage.CANCELLED)
        known = await store.step(known, after) or await store.as_it_is(known)
    dropped = 0
    for number in range(known.run.pages):
        dropped += await drop(ledger, known.run, await store.page(known.run.id, number))
    return known.run, dropped


async def drop(ledger: Ledger, run: Run, candidates: Sequence[Candidate]) -> int:
    """Drop those of a run's enrichments that nobody has begun; how many there were."""
    entries = await ledger.entries([run.entry_of(one) for one in candidates])
    waiting = [one for one in entries if _untouched(one, run)]
    dropped = 0
    for at in range(0, len(waiting), AT_ONCE):
        some = waiting[at : at + AT_ONCE]
        dropped += sum(await asyncio.gather(*(_drop(ledger, run, one) for one in some)))
    return dropped


def _untouched(entry: Entry, run: Run) -> bool:
    """Whether an enrichment is this run's and no call of it has been written down."""
    return (
        entry.event_id == event_id(run.id)
        and entry.state in (State.PLANNED, State.WAITING)
        and not entry.attempts
        and not entry.ambiguous
    )


async def _drop(ledger: Ledger, run: Run, entry: Entry) -> bool:
    claim = await ledger.begin(entry.job_id, entry.id, holder=f"{HOLDER}/{run.id}")
    if not isinstance(claim, Claim):
        return False  # a worker has it in hand, or it has moved on
    if not _untouched(claim.entry, run):
        await ledger.postpone(claim.entry, Postponement(reason=claim.entry.reason), fence=claim.fence)
        return False
    return await ledger.settle(claim, Settlement(state=State.SKIPPED, reason=CANCELLED))
