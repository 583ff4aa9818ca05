"""The RQ job: take the enrichment in hand, look before asking, ask Close, write down what came of it.

Only the sequence is here. What follows from what is decided in `workers.preflight`, `workers.outcome` and
`workers.conclusion`; what is durable is decided by the ledger's scripts.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from service.condition import record_view
from service.enrichment import State, entry_id, entry_of_job
from service.ledger import NotClaimed
from service.rules import Backoff, Mode, ObjectType
from service.transitions import Postponement, Settlement
from workers.backoff import backoff_delay_seconds
from workers.conclusion import HALTED_DELAY_SECONDS, READ_BACK_DELAY_SECONDS, Conclusion, conclude
from workers.outcome import FieldUnreadable, judge, read_field
from workers.preflight import Ask, before_call, before_reading, needs_reading
from workers.reply import Reply
from workers.reply_body import json_object

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from structlog.typing import FilteringBoundLogger

    from service.enrichment import Entry
    from service.knowledge import Knowledge
    from service.ledger import Claim, Ledger
    from service.rules import Rule
    from workers.close_api import CloseApi
    from workers.preflight import FieldState
    from workers.records import RecordReader
    from workers.reply import Failure

ENRICH_GROUP = "enrich"
READ_GROUP = "read"

PATIENT_WAIT_SECONDS = 3.0
"""A shorter parking is waited for in place; for a longer one the slot is given to other work."""

MOST_INTERNAL_ERRORS = 10


@dataclass(slots=True)
class Hands:
    """What this process has in hand: entry id to fence, and the task at work on it."""

    fences: dict[str, int] = field(default_factory=dict)
    tasks: dict[str, asyncio.Task[Any]] = field(default_factory=dict)

    def take(self, claim: Claim) -> None:
        """Remember a claim, for heartbeats."""
        self.fences[claim.entry.id] = claim.fence
        task = asyncio.current_task()
        if task is not None:
            self.tasks[claim.entry.id] = task

    def drop(self, claim: Claim) -> None:
        """Forget a claim, unless the entry is in hand anew."""
        if self.fences.get(claim.entry.id) == claim.fence:
            del self.fences[claim.entry.id]
            self.tasks.pop(claim.entry.id, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """All that a job works with; made once for a process by `workers.runtime`."""

    ledger: Ledger
    api: CloseApi
    records: RecordReader
    knowledge: Callable[[], Knowledge]
    random: Random
    now_ms: Callable[[], int]
    log: FilteringBoundLogger
    worker: str
    hands: Hands = field(default_factory=Hands)


async def enrich(job_id: str, tools: Tools, *, holder: str, trial: bool = False) -> bool:
    """Run one job to its end: afterwards the enrichment is final, put back, or somebody else's.

    Args:
        job_id: names the entry, see `service.enrichment.entry_of_job`.
        tools: what to work with.
        holder: names this execution, and no other.
        trial: ask Close although calls are halted, to find out whether they must still be.

    Returns:
        False where Redis did not let the enrichment be taken in hand: the job must go back to its queue.

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
        return False
    if isinstance(claim, NotClaimed):
        tools.log.info("job is not needed", job=job_id, why=claim.why)
        return True
    tools.hands.take(claim)
    progress = _Progress(trial=trial)
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
    return True


@dataclass(slots=True)
class _Progress:
    """How far an execution has come, for whoever has to put it back."""

    trial: bool = False
    asking: bool = False
    done: bool = False


async def _work(claim: Claim, tools: Tools, progress: _Progress) -> None:
    entry = claim.entry
    rule = tools.knowledge().rule(entry.rule)
    then = before_reading(
        entry=entry,
        rule=rule,
        fields_known=tools.knowledge().complete,
        unfinished=await _unfinished(entry, rule, tools),
        now_ms=tools.now_ms(),
    )
    if then is None and rule is not None:
        step = await _look(claim, rule, tools)
        then = await _ask(claim, rule, step, tools, progress) if isinstance(step, Ask) else step
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


async def _look(claim: Claim, rule: Rule, tools: Tools) -> Settlement | Postponement | Ask:
    """Read the record where that can spare the call, and decide."""
    entry = claim.entry
    object_type = ObjectType(entry.object_type)
    field_state: FieldState | None = None
    unmet = None
    if needs_reading(entry=entry, rule=rule):
        reply = await tools.records.read(
            object_type=object_type,
            object_id=entry.object_id,
            fields=tools.knowledge().fields_to_read(object_type, entry.field_id),
            fresh=entry.ambiguous,
        )
        reading = read_field(reply, field_id=entry.field_id)
        if isinstance(reading, FieldUnreadable):
            conclusion = conclude(
                reading.outcome,
                entry=entry,
                rule=rule,
                attempt=entry.attempts,
                called=False,
                draw=tools.random.random(),
                now_ms=tools.now_ms(),
            )
            return await _side_effects(conclusion, tools, group=READ_GROUP)
        field_state = reading
        if rule.when is not None and not entry.judged:
            unmet = _unmet(entry, rule, reply, tools)
    return before_call(entry=entry, rule=rule, field=field_state, unmet=unmet, now_ms=tools.now_ms())


def _unmet(entry: Entry, rule: Rule, reply: Reply | Failure, tools: Tools) -> str | None:
    """Why the rule's condition does not hold on the record, or None where it does."""
    record = json_object(reply) if isinstance(reply, Reply) else ""
    if rule.when is None or isinstance(record, str):
        return None
    schema = tools.knowledge().schema(ObjectType(entry.object_type))
    verdict = rule.when.judge(
        record=record_view(record, schema=schema),
        event={
            "id": entry.event_id,
            "action": entry.action,
            "object_type": entry.object_type,
            "object_id": entry.object_id,
            "lead_id": entry.lead_id,
        },
        organization={"id": entry.organization_id},
    )
    return None if verdict.met else verdict.reason


async def _ask(
    claim: Claim, rule: Rule, ask: Ask, tools: Tools, progress: _Progress
) -> Settlement | Postponement | None:
    """Ask Close, once the ledger permits it; None where somebody else holds the enrichment by now."""
    entry = claim.entry
    while True:
        permission = await tools.ledger.permit_call(
            claim,
            group=ENRICH_GROUP,
            value_before=ask.value_before,
            despite_halt=progress.trial,
        )
        match permission.verdict:
            case "go":
                break
            case "fenced":
                tools.log.info("taken over by another worker", enrichment=entry.id)
                return None
            case "halted":
                return Postponement(reason="all calls are halted", delay_seconds=HALTED_DELAY_SECONDS)
            case "parked":
                wait_seconds = permission.wait_seconds * (1 + 0.1 * tools.random.random())
                if wait_seconds > PATIENT_WAIT_SECONDS:
                    return Postponement(reason="waits for Close's rate limit", delay_seconds=wait_seconds)
                await asyncio.sleep(wait_seconds)
    mode = Mode(entry.mode)
    progress.asking = True
    result = await tools.api.enrich_field(
        organization_id=entry.organization_id,
        object_type=ObjectType(entry.object_type),
        object_id=entry.object_id,
        field_id=entry.field_id,
        set_new_value=mode is not Mode.PREVIEW,
        overwrite_existing_value=mode is Mode.OVERWRITE,
        timeout_seconds=rule.timeout_seconds,
    )
    outcome = judge(result, mode=mode)
    conclusion = conclude(
        outcome,
        entry=entry,
        rule=rule,
        attempt=permission.attempt,
        called=True,
        draw=tools.random.random(),
        now_ms=tools.now_ms(),
    )
    tools.log.info(
        "asked Close",
        enrichment=entry.id,
        object=entry.object_id,
        field=entry.field_name,
        rule=entry.rule,
        attempt=permission.attempt,
        outcome=type(outcome).__name__,
        seconds=round(result.elapsed_seconds, 3),
    )
    if progress.trial and isinstance(result, Reply) and conclusion.halt is None:
        await tools.ledger.resume(automatic_only=True)
        tools.log.warning("calls go on: a trial call went through")
    return await _side_effects(conclusion, tools, group=ENRICH_GROUP)


async def _side_effects(conclusion: Conclusion, tools: Tools, *, group: str) -> Settlement | Postponement:
    """Tell all workers what one of them has learned."""
    if conclusion.park_seconds is not None:
        await tools.ledger.park(group, seconds=conclusion.park_seconds)
        tools.log.info("rate limited", group=group, seconds=round(conclusion.park_seconds, 3))
    if conclusion.halt is not None:
        reason, kind = conclusion.halt
        if await tools.ledger.halt(reason=reason, kind=kind):
            tools.log.error("halted all calls", reason=reason, kind=kind)
    return conclusion.then


async def _end(claim: Claim, then: Settlement | Postponement, tools: Tools, progress: _Progress) -> None:
    entry = claim.entry
    facts = {
        "enrichment": entry.id,
        "object": entry.object_id,
        "field": entry.field_name,
        "rule": entry.rule,
        "reason": then.reason,
    }
    if isinstance(then, Postponement):
        kept = await tools.ledger.postpone(entry, then, fence=claim.fence)
        progress.done = True
        tools.log.info("postponed", delay_seconds=round(then.delay_seconds, 3), kept=kept, **facts)
        return
    kept = await tools.ledger.settle(claim, then)
    progress.done = True
    tools.log.info("settled", state=str(then.state), kept=kept, **facts)
    if kept:
        await _wake_dependents(entry, tools)


async def _wake_dependents(entry: Entry, tools: Tools) -> None:
    """Let enrichments of the same record that waited for this one run at once."""
    for field_id in tools.knowledge().fields_waiting_for(entry.rule):
        one = entry_id(organization_id=entry.organization_id, object_id=entry.object_id, field_id=field_id)
        if await tools.ledger.wake(one):
            tools.log.info("woken", enrichment=one, after=entry.rule)


async def _put_back(claim: Claim, tools: Tools, progress: _Progress) -> None:
    if progress.done:
        return
    then = Postponement(
        reason="the worker stopped during the call" if progress.asking else "the worker stopped",
        delay_seconds=READ_BACK_DELAY_SECONDS if progress.asking else 0.0,
        ambiguous=progress.asking,
    )
    await tools.ledger.postpone(claim.entry, then, fence=claim.fence)
    tools.log.info("put back", enrichment=claim.entry.id, ambiguous=progress.asking)


async def _put_back_after_error(claim: Claim, tools: Tools, progress: _Progress, error: Exception) -> None:
    entry = claim.entry
    reason = f"internal error: {type(error).__name__}"
    if entry.failures >= MOST_INTERNAL_ERRORS:
        end = Settlement(state=State.HELD if progress.asking else State.DEAD, reason=reason)
        await tools.ledger.settle(claim, end)
        return
    delay_seconds = backoff_delay_seconds(
        failures=entry.failures + 1, backoff=Backoff(), hint_seconds=None, draw=tools.random.random()
    )
    then = Postponement(
        reason=reason,
        delay_seconds=max(delay_seconds, READ_BACK_DELAY_SECONDS),
        ambiguous=progress.asking,
        failed=True,
    )
    await tools.ledger.postpone(entry, then, fence=claim.fence)
