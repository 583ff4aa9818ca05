"""The RQ job: take the enrichment in hand, look before asking, ask Close, write down what came of it.

Only the sequence is here. What follows from what is decided in `workers.preflight`, `workers.outcome` and
`workers.conclusion`; what is durable is decided by the ledger's scripts.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from service.enrichment import State, entry_id, entry_of_job
from service.ledger import NotClaimed
from service.rules import Backoff
from service.tracing import NEW_TRACE
from service.transitions import Cause, Postponement, Settlement
from workers.ask import ask
from workers.backoff import backoff_delay_seconds
from workers.conclusion import READ_BACK_DELAY_SECONDS
from workers.counting import count_end
from workers.look import look
from workers.noting import note_begin
from workers.preflight import Ask, before_reading
from workers.tools import Progress, Tools

if TYPE_CHECKING:
    from service.enrichment import Entry
    from service.ledger import Claim
    from service.rules import Rule

MOST_INTERNAL_ERRORS = 10


class Went(Enum):
    """What became of a job, for whoever has to return it to RQ."""

    THROUGH = "through"
    """It has done what there was to do for it."""
    REFUSED = "refused"
    """Redis did not let the enrichment be taken in hand: the job must go back to its queue."""
    NEWER = "newer"
    """The enrichment is for workers of a newer release: the job must be kept for them."""


async def enrich(job_id: str, tools: Tools, *, holder: str, trial: bool = False) -> Went:
    """Run one job to its end: afterwards the enrichment is final, put back, or somebody else's.

    Args:
        job_id: names the entry, see `service.enrichment.entry_of_job`.
        tools: what to work with.
        holder: names this execution, and no other.
        trial: ask Close although calls are halted, to find out whether they must still be.

    Raises:
        asyncio.CancelledError: the worker stops. The enrichment has been put back, as ambiguous where Close
            may have been asked.
        redis.RedisError: Redis stayed away for longer than its client retries; the entry's lease runs out
            and the sweeper puts it back.
    """
    try:
        claim = await tools.ledger.begin(job_id, entry_of_job(job_id), holder=holder)
    except RedisError as error:
        tools.log.warning("handed back", job=job_id, error=type(error).__name__)
        return Went.REFUSED
    if claim == NotClaimed("newer"):
        return Went.NEWER
    if claim == NotClaimed("missing"):
        tools.log.warning("a job without an enrichment is not run", job=job_id)
        return Went.THROUGH
    if isinstance(claim, NotClaimed):
        tools.log.info("job is not needed", job=job_id, why=claim.why)
        return Went.THROUGH
    tools.hands.take(claim)
    with tools.tracing.step("enrich", kind="consumer", within=claim.entry.trace or NEW_TRACE) as step:
        progress = Progress(trial=trial, step=step)
        note_begin(step, claim.entry)
        await _work_to_the_end(claim, tools, progress)
    return Went.THROUGH


async def _work_to_the_end(claim: Claim, tools: Tools, progress: Progress) -> None:
    try:
        await _work(claim, tools, progress)
    except asyncio.CancelledError:
        await asyncio.shield(_put_back(claim, tools, progress))
        raise
    except Exception as error:
        if progress.done:
            raise
        tools.log.exception("internal error", enrichment=claim.entry.id, rule=claim.entry.rule)
        await _put_back_after_error(claim, tools, progress, error)
    finally:
        tools.hands.drop(claim)


async def _work(claim: Claim, tools: Tools, progress: Progress) -> None:
    entry = claim.entry
    knowledge = tools.knowledge()
    rule = knowledge.rule_filling(entry.field_id, name=entry.rule, object_type=entry.object_type)
    then = before_reading(
        entry=entry,
        rule=rule,
        fields_known=knowledge.complete,
        unfinished=await _unfinished(entry, rule, tools),
        now_ms=tools.now_ms(),
    )
    if then is None and rule is not None:
        step = await look(claim, rule, tools)
        then = await ask(claim, rule, step, tools, progress) if isinstance(step, Ask) else step
    if then is not None:
        await _end(claim, then, tools, progress)


async def _unfinished(entry: Entry, rule: Rule | None, tools: Tools) -> tuple[str, ...]:
    """Entries of the same record that this one runs after and that are not final yet."""
    if rule is None or not rule.after:
        return ()
    ids = [
        entry_id(organization_id=entry.organization_id, object_id=entry.object_id, field_id=field_id)
        for field_id in tools.knowledge().fields_of_rules(rule.after)
    ]
    return tuple(one.id for one in await tools.ledger.entries(ids) if not one.state.final)


async def _end(claim: Claim, then: Settlement | Postponement, tools: Tools, progress: Progress) -> None:
    entry = claim.entry
    # ending it hands out a new fence, which a heartbeat must not take for somebody else's
    tools.hands.drop(claim)
    facts = {
        "enrichment": entry.id,
        "object": entry.object_id,
        "field": entry.field_name,
        "rule": entry.rule,
        # what Close itself says of a refusal may quote the record
        "reason": then.reason.partition(": ")[0],
    }
    if isinstance(then, Postponement):
        with tools.tracing.step("postpone"):
            kept = await tools.ledger.postpone(entry, then, fence=claim.fence, charges=progress.charges)
        progress.done = True
        count_end(tools.meter, entry, then, progress, kept=kept, now_ms=tools.now_ms())
        tools.log.info("postponed", delay_seconds=round(then.delay_seconds, 3), kept=kept, **facts)
        return
    with tools.tracing.step("settle"):
        kept = await tools.ledger.settle(claim, then, charges=progress.charges)
    progress.done = True
    count_end(tools.meter, entry, then, progress, kept=kept, now_ms=tools.now_ms())
    tools.log.info("settled", state=str(then.state), kept=kept, **facts)
    if kept:
        await _wake_dependents(entry, tools)


async def _wake_dependents(entry: Entry, tools: Tools) -> None:
    """Let enrichments of the same record that waited for this one run at once."""
    for field_id in tools.knowledge().fields_waiting_for(entry.rule):
        one = entry_id(organization_id=entry.organization_id, object_id=entry.object_id, field_id=field_id)
        if await tools.ledger.wake(one):
            tools.log.info("woken", enrichment=one, after=entry.rule)


async def _put_back(claim: Claim, tools: Tools, progress: Progress) -> None:
    if progress.done:
        return
    then = Postponement(
        reason="the worker stopped during the call" if progress.asking else "the worker stopped",
        delay_seconds=READ_BACK_DELAY_SECONDS if progress.asking else 0.0,
        ambiguous=progress.asking,
        uncalled=not progress.asking,
        unattempted=not progress.asking,
        cause=Cause.AMBIGUOUS if progress.asking else Cause.OTHER,
    )
    kept = await tools.ledger.postpone(claim.entry, then, fence=claim.fence, charges=progress.charges)
    count_end(tools.meter, claim.entry, then, progress, kept=kept, now_ms=tools.now_ms())
    tools.log.info("put back", enrichment=claim.entry.id, ambiguous=progress.asking, kept=kept)


async def _put_back_after_error(claim: Claim, tools: Tools, progress: Progress, error: Exception) -> None:
    entry = claim.entry
    reason = f"internal error: {type(error).__name__}"
    if entry.failures >= MOST_INTERNAL_ERRORS:
        state = State.HELD if progress.asking else State.DEAD
        end = Settlement(state=state, reason=reason, uncalled=not progress.asking)
        kept = await tools.ledger.settle(claim, end, charges=progress.charges)
        count_end(tools.meter, entry, end, progress, kept=kept, now_ms=tools.now_ms())
        return
    delay_seconds = backoff_delay_seconds(
        failures=entry.failures + 1, backoff=Backoff(), hint_seconds=None, draw=tools.random.random()
    )
    then = Postponement(
        reason=reason,
        delay_seconds=max(delay_seconds, READ_BACK_DELAY_SECONDS),
        ambiguous=progress.asking,
        uncalled=not progress.asking,
        unattempted=not progress.asking,
        failed=True,
        cause=Cause.AMBIGUOUS if progress.asking else Cause.RETRY,
    )
    kept = await tools.ledger.postpone(entry, then, fence=claim.fence, charges=progress.charges)
    count_end(tools.meter, entry, then, progress, kept=kept, now_ms=tools.now_ms())
