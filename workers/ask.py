"""Asking Close for one field: permission, pace, the call, and what follows from its answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.enrichment import State
from service.jobs import BULK_QUEUE
from service.ledger import Charge
from service.rules import Mode, ObjectType, OnExhausted
from service.transitions import Cause, Postponement, Settlement
from workers.budget import windows_of
from workers.conclusion import HALTED_DELAY_SECONDS, conclude
from workers.counting import count_call
from workers.look import look
from workers.noting import note_call
from workers.outcome import judge
from workers.preflight import Ask
from workers.ratelimit_header import parse_rate_limit
from workers.reply import Reply
from workers.spread_word import spread_word
from workers.tools import ENRICH_GROUP

if TYPE_CHECKING:
    from service.ledger import Claim, Permission
    from service.rules import Rule
    from workers.budget import Window
    from workers.throttle import Permit
    from workers.tools import Progress, Tools

PATIENT_WAIT_SECONDS = 3.0
"""A shorter parking is waited for in place; for a longer one the slot is given to other work."""

LEAVE_LASTS_SECONDS = 5.0
"""Older leave is not used: whoever was paused for long may have been taken over, and must not call."""

LOOK_LASTS_SECONDS = 15.0
"""After a longer wait for its turn, the record is looked at once more: somebody may have typed a value."""

TRIAL_GRACE_SECONDS = 15.0
"""A trial call of a broken field also has to connect, and its end to be written down, before another one."""

UNCONFIRMED_DELAY_SECONDS = 10.0
"""When to try again where replicas of Redis did not confirm a call."""

TURN_SPREAD_SECONDS = 5.0
"""When a budget's window turns, those who waited for it come back over so many seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Leave:
    """One call may go: which attempt it is, and its turn in the pace."""

    attempt: int
    turn: Permit


async def ask(
    claim: Claim, rule: Rule, wish: Ask, tools: Tools, progress: Progress
) -> Settlement | Postponement | None:
    """Ask Close, once everything permits it; None where somebody else holds the enrichment by now."""
    entry = claim.entry
    with tools.tracing.step("wait for permit"):
        leave = await _leave_to_go(claim, rule, wish, tools, progress)
    if not isinstance(leave, _Leave):
        return leave
    mode = Mode(entry.mode)
    progress.asking = True
    with tools.tracing.step("enrich_field", kind="client") as step:
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
        note_call(step, result, outcome, attempt=leave.attempt)
    count_call(tools.meter, outcome, seconds=result.elapsed_seconds)
    conclusion = conclude(
        outcome,
        entry=entry,
        rule=rule,
        attempt=leave.attempt,
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
        attempt=leave.attempt,
        outcome=type(outcome).__name__,
        seconds=round(result.elapsed_seconds, 3),
    )
    await spread_word(conclusion, tools, group=ENRICH_GROUP, asked_ms=leave.turn.at_ms)
    if isinstance(result, Reply):
        await tools.pace.heard(
            leave.turn, parse_rate_limit(result.headers), refused=conclusion.park_seconds is not None
        )
        if progress.trial and conclusion.halt is None:
            await tools.ledger.brakes.resume(automatic_only=True)
            tools.log.warning("calls go on: a trial call went through")
    return conclusion.then


async def _leave_to_go(
    claim: Claim, rule: Rule, wish: Ask, tools: Tools, progress: Progress
) -> _Leave | Settlement | Postponement | None:
    """Wait until a call may go, as long as that is soon.

    It is asked first whether the call could go at all, so that what is halted or without a budget does not
    use up the pace; then for its turn; then, with everything written down, for leave to go.
    """
    entry = claim.entry
    while True:
        permission, windows = await _permission(claim, rule, wish, tools, progress, only_ask=True)
        if permission.verdict == "go":
            looked_ms = tools.now_ms()
            turn = await tools.pace.permit(bulk=entry.queue == BULK_QUEUE)
            if tools.now_ms() - looked_ms > LOOK_LASTS_SECONDS * 1000:
                again = await look(claim, rule, tools)
                if not isinstance(again, Ask):
                    await tools.pace.used(turn)
                    return again
                wish = again
            asked_ms = tools.now_ms()
            permission, windows = await _permission(claim, rule, wish, tools, progress, only_ask=False)
            await tools.pace.used(turn)
            if permission.verdict == "go":
                if tools.now_ms() - asked_ms <= LEAVE_LASTS_SECONDS * 1000:
                    return _Leave(attempt=permission.attempt, turn=turn)
                reason = "the worker was paused before the call"
                return Postponement(reason=reason, uncalled=True, unattempted=True)
        if permission.verdict == "fenced":
            tools.log.info("taken over by another worker", enrichment=entry.id)
            return None
        if permission.verdict != "parked" or permission.wait_seconds > PATIENT_WAIT_SECONDS:
            return _not_now(permission, windows, entry.field_name, tools)
        await asyncio.sleep(_spread(permission.wait_seconds, tools))


async def _permission(
    claim: Claim, rule: Rule, wish: Ask, tools: Tools, progress: Progress, *, only_ask: bool
) -> tuple[Permission, tuple[Window, ...]]:
    """Ask the ledger, with the budgets of this moment: the wait may have lasted into another day."""
    windows = windows_of(tools.knowledge().rulebook, rule, now_ms=tools.now_ms(), zone=tools.zone)
    progress.charges = tuple(
        Charge(key=one.key, limit=one.limit, expires_ms=one.expires_ms) for one in windows
    )
    permission = await tools.ledger.permit_call(
        claim,
        group=ENRICH_GROUP,
        value_before=wish.value_before,
        charges=progress.charges,
        despite_halt=progress.trial,
        only_ask=only_ask,
        trial_seconds=rule.timeout_seconds + TRIAL_GRACE_SECONDS,
    )
    return permission, windows


def _not_now(
    permission: Permission, windows: tuple[Window, ...], field_name: str, tools: Tools
) -> Settlement | Postponement:
    if permission.verdict == "halted":
        return Postponement(
            reason="all calls are halted", delay_seconds=HALTED_DELAY_SECONDS, cause=Cause.HALT
        )
    if permission.verdict == "exhausted":
        return _out_of_budget(windows[permission.window], tools)
    if permission.verdict == "unconfirmed":
        return Postponement(
            reason="too few replicas of Redis know of the call, so it was not made",
            delay_seconds=_spread(UNCONFIRMED_DELAY_SECONDS, tools),
            uncalled=True,
            unattempted=True,
        )
    wait_seconds = _spread(permission.wait_seconds, tools)
    if permission.verdict == "broken":
        reason = f"calls for {field_name} keep timing out: paused; a simpler guidance in Close may help"
        return Postponement(reason=reason, delay_seconds=wait_seconds, cause=Cause.BREAKER)
    return Postponement(
        reason="waits for Close's rate limit", delay_seconds=wait_seconds, cause=Cause.RATE_LIMIT
    )


def _out_of_budget(window: Window, tools: Tools) -> Settlement | Postponement:
    if window.on_exhausted is OnExhausted.DROP:
        return Settlement(state=State.SKIPPED, reason=f"budget used up: {window.words}")
    delay_seconds = max(0.0, (window.ends_ms - tools.now_ms()) / 1000)
    return Postponement(
        reason=f"waits for the budget: {window.words}",
        delay_seconds=delay_seconds + TURN_SPREAD_SECONDS * tools.random.random(),
        cause=Cause.BUDGET,
    )


def _spread(wait_seconds: float, tools: Tools) -> float:
    return wait_seconds * (1 + 0.1 * tools.random.random())
