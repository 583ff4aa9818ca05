"""After a call: how it ends, or when it runs again. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.enrichment import State
from service.rules import Mode
from service.transitions import Cause, Postponement, Settlement
from workers.backoff import MOST_HINT_SECONDS, backoff_delay_seconds, jittered_wait_seconds
from workers.outcome import Ambiguous, Found, Gone, Halt, Nothing, RateLimited, Rejected, Retry

if TYPE_CHECKING:
    from service.enrichment import Entry
    from service.rules import Rule
    from workers.outcome import Outcome

READ_BACK_DELAY_SECONDS = 5.0
"""A call that timed out here may still be running at Close: the field is not read back before this."""

HALTED_DELAY_SECONDS = 5.0
"""While calls are halted, work in hand goes back to the queue, where it waits untouched."""

UNREACHABLE_PATIENCE_SECONDS = 72 * 3600.0
"""An outage uses up no attempts; after as long as Close itself retries a webhook, it is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """What follows from one try.

    Attributes:
        then: how the enrichment ends or when it runs again.
        park_seconds: no call of the endpoint group may leave for so long, from any worker.
        halt: (reason, kind): no call at all may leave until someone resumes.
    """

    then: Settlement | Postponement
    park_seconds: float | None = None
    halt: tuple[str, str] | None = None


def conclude(
    outcome: Outcome, *, entry: Entry, rule: Rule, attempt: int, called: bool, draw: float, now_ms: int
) -> Conclusion:
    """Turn what came of a try into what happens next.

    Args:
        outcome: of the call, or of reading the record before it.
        entry: the enrichment.
        rule: its rule.
        attempt: which attempt this was, counted from 1.
        called: the outcome is the enrichment call's; False where reading the record before it went wrong.
        draw: a random number from 0 to below 1, for jitter.
        now_ms: the time.
    """
    then: Settlement | Postponement
    match outcome:
        case Found() | Nothing():
            then = _answered(outcome, mode=Mode(entry.mode))
        case Gone(reason=reason):
            then = Settlement(state=State.GONE, reason=reason, uncalled=called, answered=called)
        case Rejected(reason=reason):
            then = Settlement(state=State.REJECTED, reason=reason, uncalled=called, answered=called)
        case RateLimited():
            wait_seconds = min(outcome.wait_seconds, MOST_HINT_SECONDS)
            then = Postponement(
                reason="waits for Close's rate limit",
                delay_seconds=jittered_wait_seconds(reset_seconds=wait_seconds, draw=draw),
                uncalled=called,
                unattempted=called,
                cause=Cause.RATE_LIMIT,
            )
            return Conclusion(then=then, park_seconds=wait_seconds)
        case Halt(reason=reason, kind=kind):
            then = Postponement(
                reason=f"halted: {reason}",
                delay_seconds=HALTED_DELAY_SECONDS,
                uncalled=called,
                unattempted=called,
                cause=Cause.HALT,
            )
            return Conclusion(then=then, halt=(reason, kind))
        case _:  # Ambiguous or Retry: the types leave nothing else
            then = _failed(outcome, entry, rule, attempt=attempt, called=called, draw=draw, now_ms=now_ms)
    return Conclusion(then=then)


def _answered(outcome: Found | Nothing, *, mode: Mode) -> Settlement:
    if isinstance(outcome, Nothing):
        return Settlement(
            state=State.EMPTY,
            reason=outcome.note,
            confidence=outcome.confidence,
            reasoning=outcome.reasoning,
            answered=True,
        )
    return Settlement(
        state=State.PREVIEWED if mode is Mode.PREVIEW else State.FILLED,
        value=outcome.value,
        confidence=outcome.confidence,
        reasoning=outcome.reasoning,
        answered=True,
    )


def _failed(
    outcome: Ambiguous | Retry,
    entry: Entry,
    rule: Rule,
    *,
    attempt: int,
    called: bool,
    draw: float,
    now_ms: int,
) -> Settlement | Postponement:
    delay_seconds = backoff_delay_seconds(
        failures=entry.failures + 1, backoff=rule.backoff, hint_seconds=outcome.hint_seconds, draw=draw
    )
    if called and isinstance(outcome, Ambiguous):
        # even with the attempts used up: reading back is free and may find the value
        return Postponement(
            reason=outcome.reason,
            delay_seconds=max(delay_seconds, READ_BACK_DELAY_SECONDS),
            ambiguous=True,
            failed=True,
            timed_out=outcome.timed_out,
            cause=Cause.AMBIGUOUS,
        )
    if called and not (isinstance(outcome, Retry) and outcome.unreachable):
        if attempt >= rule.attempts:
            return Settlement(state=State.DEAD, reason=outcome.reason, uncalled=True)
        return Postponement(
            reason=outcome.reason,
            delay_seconds=delay_seconds,
            uncalled=True,
            failed=True,
            cause=Cause.RETRY,
        )
    if _given_up(entry, now_ms):
        return Settlement(state=State.DEAD, reason=outcome.reason, uncalled=called)
    return Postponement(
        reason=outcome.reason,
        delay_seconds=delay_seconds,
        uncalled=called,
        unattempted=called,
        failed=True,
        unreachable=True,
        cause=Cause.RETRY,
    )


def _given_up(entry: Entry, now_ms: int) -> bool:
    return (
        entry.unreachable_ms is not None
        and now_ms - entry.unreachable_ms > UNREACHABLE_PATIENCE_SECONDS * 1000
    )
