"""Asking Close for one field: permission, pace, the call, and what follows from its answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from service.enrichment import State
from service.jobs import BULK_QUEUE
from service.ledger import Charge
from service.rules import Mode, ObjectType, OnExhausted
from service.transitions import Postponement, Settlement
from workers.budget import windows_of
from workers.conclusion import HALTED_DELAY_SECONDS, conclude
from workers.outcome import judge
from workers.ratelimit_header import parse_rate_limit
from workers.reply import Reply
from workers.spread_word import spread_word
from workers.tools import ENRICH_GROUP

if TYPE_CHECKING:
    from service.ledger import Claim, Permission
    from service.rules import Rule
    from workers.budget import Window
    from workers.preflight import Ask
    from workers.tools import Progress, Tools

PATIENT_WAIT_SECONDS = 3.0
"""A shorter parking is waited for in place; for a longer one the slot is given to other work."""

TURN_SPREAD_SECONDS = 5.0
"""When a budget's window turns, those who waited for it come back over so many seconds."""


async def ask(
    claim: Claim, rule: Rule, wish: Ask, tools: Tools, progress: Progress
) -> Settlement | Postponement | None:
    """Ask Close, once everything permits it; None where somebody else holds the enrichment by now.

    It is asked first whether the call could go at all, so that what is halted or without a budget does not
    use up the pace; then for its turn; then, with everything written down, for leave to go.
    """
    entry = claim.entry
    while True:
        windows = windows_of(tools.knowledge().rulebook, rule, now_ms=tools.now_ms(), zone=tools.zone)
        charges = tuple(Charge(key=one.key, limit=one.limit, expires_ms=one.expires_ms) for one in windows)
        for only_ask in (True, False):
            if not only_ask:
                turn = await tools.pace.permit(bulk=entry.queue == BULK_QUEUE)
                progress.charges = charges
            permission = await tools.ledger.permit_call(
                claim,
                group=ENRICH_GROUP,
                value_before=wish.value_before,
                charges=charges,
                despite_halt=progress.trial,
                only_ask=only_ask,
                trial_seconds=rule.timeout_seconds,
            )
            if permission.verdict != "go":
                break
        if permission.verdict == "go":
            break
        if permission.verdict == "fenced":
            tools.log.info("taken over by another worker", enrichment=entry.id)
            return None
        if permission.verdict == "parked" and permission.wait_seconds <= PATIENT_WAIT_SECONDS:
            await asyncio.sleep(_spread(permission.wait_seconds, tools))
            continue
        return _not_now(permission, windows, entry.field_name, tools)

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
    await spread_word(conclusion, tools, group=ENRICH_GROUP, asked_ms=turn.at_ms)
    if isinstance(result, Reply):
        await tools.pace.heard(
            turn, parse_rate_limit(result.headers), refused=conclusion.park_seconds is not None
        )
        if progress.trial and conclusion.halt is None:
            await tools.ledger.brakes.resume(automatic_only=True)
            tools.log.warning("calls go on: a trial call went through")
    return conclusion.then


def _not_now(
    permission: Permission, windows: tuple[Window, ...], field_name: str, tools: Tools
) -> Settlement | Postponement:
    if permission.verdict == "halted":
        return Postponement(reason="all calls are halted", delay_seconds=HALTED_DELAY_SECONDS)
    if permission.verdict == "exhausted":
        return _out_of_budget(windows[permission.window], tools)
    wait_seconds = _spread(permission.wait_seconds, tools)
    if permission.verdict == "broken":
        reason = f"calls for {field_name} keep timing out: paused; a simpler guidance in Close may help"
        return Postponement(reason=reason, delay_seconds=wait_seconds)
    return Postponement(reason="waits for Close's rate limit", delay_seconds=wait_seconds)


def _out_of_budget(window: Window, tools: Tools) -> Settlement | Postponement:
    if window.on_exhausted is OnExhausted.DROP:
        return Settlement(state=State.SKIPPED, reason=f"budget used up: {window.words}")
    delay_seconds = max(0.0, (window.ends_ms - tools.now_ms()) / 1000)
    return Postponement(
        reason=f"waits for the budget: {window.words}",
        delay_seconds=delay_seconds + TURN_SPREAD_SECONDS * tools.random.random(),
    )


def _spread(wait_seconds: float, tools: Tools) -> float:
    return wait_seconds * (1 + 0.1 * tools.random.random())
