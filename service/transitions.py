"""The two ways an enrichment leaves a worker's hands: it ends, or it is put back. Pure values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from service.enrichment import State


class Cause(StrEnum):
    """Why an enrichment waits, in one of a few words, for metrics."""

    RATE_LIMIT = "rate_limit"
    BUDGET = "budget"
    HALT = "halt"
    BREAKER = "breaker"
    AFTER = "after"
    RETRY = "retry"
    AMBIGUOUS = "ambiguous"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Postponement:
    """How an enrichment is put back.

    Attributes:
        reason: in words, for people.
        delay_seconds: when it may run again; 0 is at once.
        ambiguous: its call may have run: the field is read back before another.
        uncalled: the call, if one was written down, did not run, so nothing can have been charged.
        unattempted: and it does not count as an attempt either.
        failed: it counts for backoff.
        unreachable: Close could not be reached at all.
        blocked_by: entries that must be final first; if they all are by now, it runs at once.
        overdue_seconds: only if nothing has happened to it for so long (the sweeper's guard).
        front: to the front of its queue.
        timed_out: Close took too long: the field's breaker counts it.
        cause: what it is counted as; nothing else depends on it.
    """

    reason: str
    delay_seconds: float = 0.0
    ambiguous: bool = False
    uncalled: bool = False
    unattempted: bool = False
    failed: bool = False
    unreachable: bool = False
    blocked_by: tuple[str, ...] = ()
    overdue_seconds: float | None = None
    front: bool = False
    timed_out: bool = False
    cause: Cause = field(default=Cause.OTHER, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """How an enrichment ends.

    Attributes:
        state: a final one.
        reason: in words, for people; "" where the state says it all.
        value, confidence, reasoning: as Close returned them; None where there is nothing.
        uncalled: Close says that the call which was written down did not happen.
        answered: Close answered the call, so the field's breaker closes.
    """

    state: State
    reason: str = ""
    value: Any = field(default=None, repr=False)
    confidence: str | None = None
    reasoning: str | None = field(default=None, repr=False)
    uncalled: bool = False
    answered: bool = False
