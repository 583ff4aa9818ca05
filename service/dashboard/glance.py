"""What the Overview and the frame show, as pages and the JSON API have it. Pure."""

from __future__ import annotations

import msgspec

from service.dashboard.health import Health  # noqa: TC001  msgspec reads the annotations


class Attention(msgspec.Struct, frozen=True, kw_only=True):
    """How much waits for a person.

    Attributes:
        dead_letters: enrichments that ended without an answer, at most.
        held: enrichments that the burst guard holds.
        quarantined: signed deliveries that could not be read.
        breakers: fields that are left alone for now.
        halted: whether no call leaves at all.
    """

    dead_letters: int
    held: int
    quarantined: int
    breakers: int
    halted: bool

    @property
    def count(self) -> int:
        """All of them together, for a badge."""
        return self.dead_letters + self.held + self.quarantined + self.breakers + self.halted


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What is going on at this moment.

    Attributes:
        calling: calls to Close in flight.
        planned: enrichments that a worker may take.
        waiting: enrichments that wait for something: to settle, for the pace, a budget, another rule.
        queued: jobs by queue.
        scheduled: jobs for later by queue.
        workers: how many are alive.
        oldest_seconds: for how long the oldest live job that could run has waited for a worker.
    """

    calling: int
    planned: int
    waiting: int
    queued: dict[str, int]
    scheduled: dict[str, int]
    workers: int
    oldest_seconds: float


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """A minute, or several together.

    Attributes:
        start_seconds: when it began, Unix seconds.
        outcomes: enrichments that ended, by final state.
        planned: enrichments planned.
        events: deliveries by what became of them.
        paid: calls that Close may have charged for.
        p50_seconds: in how many seconds half of the live enrichments were filled; null where none was.
        p95_seconds: the same of 19 in 20.
    """

    start_seconds: int
    outcomes: dict[str, int]
    planned: int
    events: dict[str, int]
    paid: int
    p50_seconds: float | None
    p95_seconds: float | None


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What some work did and cost.

    Attributes:
        calls: made.
        paid: that may have been charged: credits.
        found: values found.
        empty: nothing found.
        skipped: saved, as the field was filled or the rule did not want it.
        confirmed: saved, as an unclear call had run.
        duplicates: saved, as the same field was wanted again.
    """

    calls: int
    paid: int
    found: int
    empty: int
    skipped: int
    confirmed: int
    duplicates: int

    @property
    def saved(self) -> int:
        """Calls that were not made."""
        return self.skipped + self.confirmed + self.duplicates

    @property
    def hit_rate(self) -> float | None:
        """The share of answers with a value; None where there was none."""
        answered = self.found + self.confirmed + self.empty
        return (self.found + self.confirmed) / answered if answered else None


class Money(Costs, frozen=True, kw_only=True):
    """Credits of a day.

    Attributes:
        day: in the time zone of budgets.
    """

    day: str


class BudgetLine(msgspec.Struct, frozen=True, kw_only=True):
    """A budget as it stands.

    Attributes:
        words: what it allows, for people.
        scope: `all`, or `rule:` and the rule's name.
        period: `day` or `month`.
        limit: credits that it allows.
        spent: spent or reserved of them.
        ends_ms: when the next window begins, Unix milliseconds.
    """

    words: str
    scope: str
    period: str
    limit: int
    spent: int
    ends_ms: int


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One enrichment that has just ended.

    Attributes:
        id: the enrichment.
        object_id: the lead or contact.
        field: the field's name.
        rule: the rule that planned it; "" where the history does not say.
        state: how it ended.
        at_ms: when, Unix milliseconds.
        value: what the field holds by it now, for people; "" for nothing.
        reason: why it ended so.
    """

    id: str
    object_id: str
    field: str
    rule: str
    state: str
    at_ms: int
    value: str
    reason: str


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """The whole service at one glance.

    Attributes:
        at_ms: when it was looked at, Unix milliseconds.
        health: whether all is well, in words.
        attention: what waits for a person.
        work: what is going on.
        states: enrichments by state, of all that are remembered.
        minutes: the last hour minute by minute, oldest first; the last one is not over yet.
        hour: the last hour together.
        per_minute: enrichments that ended per minute lately.
        today: credits of today.
        budgets: as they stand.
        newest: results, newest first.
    """

    at_ms: int
    health: Health
    attention: Attention
    work: Work
    states: dict[str, int]
    minutes: list[Slice]
    hour: Slice
    per_minute: float
    today: Money
    budgets: list[BudgetLine]
    newest: list[Result]
