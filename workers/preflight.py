"""Before a call: may it be spared? Pure.

A field that is filled already is not asked about, a condition that does not hold ends it, and after a call
whose end nobody saw, what the field holds now decides whether it ran.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from service.enrichment import State
from service.rules import Mode, OnAmbiguous
from service.transitions import Cause, Postponement, Settlement
from workers.reply import FieldEmpty, FieldGone, FieldPresent

if TYPE_CHECKING:
    from service.enrichment import Entry
    from service.rules import Rule

UNKNOWN_RULE_PATIENCE_SECONDS = 600.0
UNKNOWN_RULE_DELAY_SECONDS = 30.0
"""While a new rules file reaches every process, some know a rule that others do not know yet."""

IGNORANT_DELAY_SECONDS = 2.0
"""A worker that has just started may not know Close's fields for as long as another one asks for them."""

LOST_GRACE_SECONDS = 10.0
"""A call may leave seconds after it was written down, and what was read of the record may be seconds old."""

BLOCKED_DELAY_SECONDS = 60.0
"""How long to wait for other rules when their end, which wakes this one at once, goes unnoticed."""

FieldState = FieldPresent | FieldEmpty | FieldGone


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Close is to be asked; `value_before` is JSON of what an overwriting call would replace."""

    value_before: str | None = None


def before_reading(
    *, entry: Entry, rule: Rule | None, fields_known: bool, unfinished: tuple[str, ...], now_ms: int
) -> Settlement | Postponement | None:
    """What can be decided without looking at the record; None where it has to be looked at.

    Args:
        entry: the enrichment.
        rule: the rule of that name in this worker's rules file, or None; None, too, where it fills another
            field by now.
        fields_known: this worker knows Close's custom fields; without them nobody can tell what a condition
            reads, or which entries `after` means.
        unfinished: entries that must be final before this one may run.
        now_ms: the time.
    """
    if rule is None:
        return _without_rule(entry, now_ms=now_ms)
    if not rule.enabled and not entry.ambiguous:
        return Settlement(state=State.SKIPPED, reason="its rule is disabled")
    if not fields_known:
        return Postponement(
            reason="Close's custom fields are not known yet", delay_seconds=IGNORANT_DELAY_SECONDS
        )
    if unfinished:
        return Postponement(
            reason=f"waits for {', '.join(rule.after)}",
            delay_seconds=BLOCKED_DELAY_SECONDS,
            blocked_by=unfinished,
            cause=Cause.AFTER,
        )
    return None


def _without_rule(entry: Entry, *, now_ms: int) -> Settlement | Postponement:
    if now_ms - entry.planned_ms < UNKNOWN_RULE_PATIENCE_SECONDS * 1000:
        return Postponement(
            reason="its rule is not in this worker's rules file, or fills another field there",
            delay_seconds=UNKNOWN_RULE_DELAY_SECONDS,
        )
    if entry.ambiguous:
        return Settlement(state=State.HELD, reason="a call may have run; its rule is no longer there")
    return Settlement(
        state=State.SKIPPED, reason="its rule is no longer in the rules file, or fills another field now"
    )


def needs_reading(*, entry: Entry, rule: Rule) -> bool:
    """Whether the record has to be read before Close is asked. Reading costs no credits."""
    if Mode(entry.mode) is Mode.PREVIEW and not entry.ambiguous:
        return rule.when is not None and not entry.judged
    return True


def log_would_tell(*, entry: Entry, field: FieldState) -> bool:
    """Whether only Close's event log can tell that an unclear call wrote: the value is as it was before."""
    return (
        entry.ambiguous
        and Mode(entry.mode) is Mode.OVERWRITE
        and isinstance(field, FieldPresent)
        and canonical(field.value) == (entry.value_before or "")
    )


def before_call(
    *,
    entry: Entry,
    rule: Rule,
    field: FieldState | None,
    unmet: str | None,
    logged: bool | None = None,
    now_ms: int,
) -> Settlement | Postponement | Ask:
    """Decide whether Close is asked.

    Args:
        entry: the enrichment.
        rule: its rule.
        field: what the field holds now; None where it need not be known.
        unmet: why the rule's condition does not hold, or None where it does or was judged before.
        logged: whether Close's event log has a write of ours to the field since the unclear call; None where
            it was not asked.
        now_ms: the time.
    """
    if isinstance(field, FieldGone):
        return Settlement(state=State.GONE, reason=field.reason)
    present = field if isinstance(field, FieldPresent) else None
    if entry.ambiguous:
        if logged:
            return Settlement(
                state=State.CONFIRMED,
                reason="Close's event log has our write after an unclear call",
                value=present.value if present else None,
            )
        return _after_unclear_call(entry=entry, rule=rule, present=present, now_ms=now_ms)
    if unmet is not None:
        return Settlement(state=State.SKIPPED, reason=unmet)
    spared = _spared(entry=entry, rule=rule, present=present, now_ms=now_ms)
    return spared or _ask_within_attempts(entry=entry, rule=rule, present=present)


def _spared(
    *, entry: Entry, rule: Rule, present: FieldPresent | None, now_ms: int
) -> Settlement | Postponement | None:
    """Why a field that is only to be filled is not asked about, or not yet."""
    if Mode(entry.mode) is not Mode.FILL:
        return None
    if present is not None:
        return Settlement(state=State.KEPT, reason="the field already has a value")
    running_until_ms = (entry.lost_ms or 0) + (rule.timeout_seconds + LOST_GRACE_SECONDS) * 1000
    if now_ms < running_until_ms:
        return Postponement(
            reason="Redis was empty until lately: an earlier call may still be running at Close",
            delay_seconds=(running_until_ms - now_ms) / 1000,
            cause=Cause.AMBIGUOUS,
        )
    return None


def _after_unclear_call(
    *, entry: Entry, rule: Rule, present: FieldPresent | None, now_ms: int
) -> Settlement | Postponement | Ask:
    mode = Mode(entry.mode)
    if present is not None and (
        mode is Mode.FILL
        or (mode is Mode.OVERWRITE and canonical(present.value) != (entry.value_before or ""))
    ):
        return Settlement(
            state=State.CONFIRMED,
            reason="read back after an unclear call: the field has a value now",
            value=present.value,
        )
    running_until_ms = (entry.called_ms or 0) + rule.timeout_seconds * 1000
    if now_ms < running_until_ms:
        return Postponement(
            reason="the earlier call may still be running at Close",
            delay_seconds=(running_until_ms - now_ms) / 1000,
            cause=Cause.AMBIGUOUS,
        )
    if not rule.enabled:
        return Settlement(state=State.HELD, reason="a call may have run; its rule is disabled now")
    decided = (entry.retried_ms or 0) > (entry.called_ms or 0)
    if rule.on_ambiguous is OnAmbiguous.HOLD and not decided:
        return Settlement(state=State.HELD, reason="a call may have run; the field does not tell")
    return _ask_within_attempts(entry=entry, rule=rule, present=present)


def _ask_within_attempts(*, entry: Entry, rule: Rule, present: FieldPresent | None) -> Settlement | Ask:
    if entry.attempts >= rule.attempts:
        return Settlement(state=State.DEAD, reason=f"{entry.attempts} of {rule.attempts} attempts failed")
    overwrites = Mode(entry.mode) is Mode.OVERWRITE
    return Ask(value_before=canonical(present.value) if overwrites and present else None)


def canonical(value: Any) -> str:
    """A value as JSON with sorted keys, to compare what a field held with what it holds."""
    return msgspec.json.encode(value, order="sorted").decode()
