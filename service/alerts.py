"""What deserves an alert. Pure: what was seen of the service at one moment -> what a person should know.

There are conditions, which begin and end (calls are halted), and counts, which only grow (dead letters). When
they are told, and how often, is `service.alert_telling`; in what words, `service.alert_text`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from service.durations import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Kind(StrEnum):
    """What an alert is about, the most urgent first."""

    HALTED = "halted"
    NO_WORKER = "no-worker"
    SUBSCRIPTION = "subscription"
    OLDEST_JOB = "oldest-job"
    BUDGET = "budget"
    BREAKER = "breaker"
    BURST_GUARD = "burst-guard"
    DEAD_LETTERS = "dead-letters"
    QUARANTINE = "quarantine"
    MISSED = "missed-events"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How one kind is told.

    Attributes:
        advice: what a person can do, with the command.
        hold_seconds: it must have lasted so long before it is told.
        over_after_seconds: it must have been gone for so long before it is told to be over.
    """

    advice: str
    hold_seconds: float = 0.0
    over_after_seconds: float = 60.0


MANNERS: Mapping[Kind, Manner] = {
    Kind.HALTED: Manner(
        advice="mend the cause, then `close-enrich resume`; work waits unharmed",
        # a halt ends for certain, by a person or by a call that went through
        over_after_seconds=0.0,
    ),
    Kind.NO_WORKER: Manner(
        advice="start `close-enrich worker`; what is accepted waits",
        # a new release stops one worker and starts the next
        hold_seconds=120.0,
    ),
    Kind.SUBSCRIPTION: Manner(
        advice="`close-enrich webhook list`, then `webhook ensure` or `webhook resume`",
        # it is looked at every few minutes only
        over_after_seconds=0.0,
    ),
    Kind.OLDEST_JOB: Manner(advice="`close-enrich status`; start more workers, or look at Close's pace"),
    Kind.BUDGET: Manner(advice="`close-enrich cost`; raise the budget in the rules file, or leave it"),
    Kind.BREAKER: Manner(advice="simplify the field's guidance in Close; `close-enrich status`"),
    Kind.BURST_GUARD: Manner(
        advice="`close-enrich release --dry-run` shows the price, `close-enrich release` lets it go",
        # an import goes on for a while: the number told should say how large it is
        hold_seconds=60.0,
    ),
    Kind.DEAD_LETTERS: Manner(advice="`close-enrich dead list`, then `dead retry` or `dead drop`"),
    Kind.QUARANTINE: Manner(advice="`close-enrich quarantine list`"),
    Kind.MISSED: Manner(advice="nothing for these; `close-enrich webhook list` says if deliveries fail"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Halted:
    """Calls are halted: why, by whom, and since when (Unix milliseconds)."""

    reason: str
    by_person: bool
    since_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedUp:
    """A budget without credits.

    Attributes:
        words: what people call it, such as `500 credits a day for all rules`.
        drops: what has no credit ends as skipped, and does not wait.
    """

    words: str
    drops: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A field whose calls keep timing out, so many in a row."""

    field_id: str
    field_name: str
    rule: str
    timeouts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What was seen at one moment. Times are Unix milliseconds of Redis's clock.

    Attributes:
        now_ms: when.
        halt: why no call leaves, or None.
        workers: how many are alive.
        subscription: what is wrong with the webhook subscription; "" for nothing, None where nobody has
            looked lately, or where it looks after itself no more.
        used_up: budgets without credits.
        broken: fields that are not called.
        held: enrichments that the burst guard holds.
        oldest_due_ms: since when the oldest live job could have been taken in hand; None where none waits.
        dead_letters: how many there are.
        quarantined: how many deliveries could not be read and are kept.
        missed: how many events walks through Close's event log have found that no delivery had brought.
    """

    now_ms: int
    halt: Halted | None = None
    workers: int = 1
    subscription: str | None = ""
    used_up: tuple[UsedUp, ...] = ()
    broken: tuple[Broken, ...] = ()
    held: int = 0
    oldest_due_ms: int | None = None
    dead_letters: int = 0
    quarantined: int = 0
    missed: int = 0

    @property
    def unknown(self) -> frozenset[Kind]:
        """The kinds of which nothing can be said now: what was so before stays so."""
        return frozenset({Kind.SUBSCRIPTION}) if self.subscription is None else frozenset()

    @property
    def counts(self) -> Mapping[Kind, int]:
        """What only matters when it grows."""
        return {
            Kind.DEAD_LETTERS: self.dead_letters,
            Kind.QUARANTINE: self.quarantined,
            Kind.MISSED: self.missed,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Something that holds now and that a person should know.

    Attributes:
        kind: what it is about.
        subject: which one of its kind; "" where there can be only one.
        words: what is wrong; no record's values.
        since_ms: since when, where that is known; Unix milliseconds.
    """

    kind: Kind
    subject: str = ""
    words: str
    since_ms: int | None = None

    @property
    def key(self) -> str:
        """Its name among all conditions."""
        return f"{self.kind}:{self.subject}" if self.subject else str(self.kind)


def conditions(
    observation: Observation, *, oldest_job_seconds: float | None, halted_ms: int | None = None
) -> tuple[Condition, ...]:
    """All that holds, the most urgent first.

    Args:
        observation: what was seen.
        oldest_job_seconds: how long a live job may wait for a worker; None for any time. What settles, waits
            for a budget, a breaker or Close's pace is not due yet, and does not count.
        halted_ms: when calls were last seen to be halted: nobody is to blame for the time before.
    """
    found = [*_standstill(observation), *_slow(observation, oldest_job_seconds, halted_ms)]
    found += [
        Condition(
            kind=Kind.BUDGET,
            subject=one.words,
            words=f"a budget is used up: {one.words}; more "
            + ("ends as skipped" if one.drops else "waits for the next window"),
        )
        for one in observation.used_up
    ]
    found += [
        Condition(
            kind=Kind.BREAKER,
            subject=one.field_id,
            words=f"{one.field_name} is not called (rule {one.rule}): {one.timeouts} timeouts in a row",
        )
        for one in observation.broken
    ]
    if observation.held:
        words = f"the burst guard holds {observation.held}, at most as many credits"
        found.append(Condition(kind=Kind.BURST_GUARD, words=words))
    return tuple(found)


def _standstill(observation: Observation) -> Iterator[Condition]:
    halt = observation.halt
    if halt is not None and halt.by_person:
        yield Condition(
            kind=Kind.HALTED,
            words=f"all calls are halted by a person: {halt.reason}",
            since_ms=halt.since_ms,
        )
    elif halt is not None:
        words = f"all calls are halted: {_ours(halt.reason)}; one is tried every few minutes"
        yield Condition(kind=Kind.HALTED, words=words, since_ms=halt.since_ms)
    if not observation.workers:
        yield Condition(kind=Kind.NO_WORKER, words="no worker is alive")
    if observation.subscription:
        words = f"the webhook subscription needs attention: {_ours(observation.subscription)}"
        yield Condition(kind=Kind.SUBSCRIPTION, words=words)


def _slow(
    observation: Observation, oldest_job_seconds: float | None, halted_ms: int | None
) -> Iterator[Condition]:
    due_ms = observation.oldest_due_ms
    if due_ms is None or oldest_job_seconds is None or observation.halt is not None:
        return
    since_ms = max(due_ms, halted_ms or 0)
    waited_seconds = (observation.now_ms - since_ms) // 1000
    if waited_seconds >= oldest_job_seconds:
        words = f"the oldest live job has waited for a worker for over {format_duration(oldest_job_seconds)}"
        yield Condition(kind=Kind.OLDEST_JOB, words=words, since_ms=since_ms)


def _ours(reason: str) -> str:
    """A reason without what Close itself says of it, which may quote a record."""
    return reason.partition(": ")[0]
