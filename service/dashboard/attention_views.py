"""What waits for a person, as pages and JSON tell it. Frozen values; no I/O."""

from __future__ import annotations

import msgspec


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """An enrichment that ended without an answer.

    Attributes:
        id: of the enrichment.
        object_id: the lead or contact.
        field: the field's name.
        rule: the rule that planned it.
        state: dead, held or rejected.
        reason: why it ended so.
        ended_ms: when, Unix milliseconds.
        attempts: calls that ended badly or well.
        credits: calls that Close may have charged for.
        ambiguous: nobody knows whether its last call ran: a retry reads the field back first.
    """

    id: str
    object_id: str
    field: str
    rule: str
    state: str
    reason: str
    ended_ms: int
    attempts: int
    credits: int
    ambiguous: bool


class LetterGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Dead letters of one rule and state.

    Attributes:
        rule: its name.
        state: how they ended.
        count: how many.
        credits_at_most: what retrying them costs at most.
    """

    rule: str
    state: str
    count: int
    credits_at_most: int


class LetterPage(msgspec.Struct, frozen=True, kw_only=True):
    """Dead letters, newest first.

    Attributes:
        letters: a page of those that are wanted.
        next: where the next page begins; null where there is nothing left to look at.
        all: how many dead letters there are at most, wanted or not.
    """

    letters: list[DeadLetter]
    next: str | None
    all: int


class LetterCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many dead letters are meant.

    Attributes:
        groups: by rule and state, the most first.
        count: all of them together.
        more: there may be more, older ones.
        until_ms: the moment that ages were counted from, Unix milliseconds.
    """

    groups: list[LetterGroup]
    count: int
    more: bool
    until_ms: int

    @property
    def credits_at_most(self) -> int:
        """What retrying all of them costs at most."""
        return sum(one.credits_at_most for one in self.groups)


class HeldGroup(msgspec.Struct, frozen=True, kw_only=True):
    """What the burst guard holds of one rule.

    Attributes:
        rule: its name.
        count: enrichments.
        credits_at_most: what letting them go costs at most.
        oldest_ms: since when the first of them waits, Unix milliseconds.
    """

    rule: str
    count: int
    credits_at_most: int
    oldest_ms: int


class HeldView(msgspec.Struct, frozen=True, kw_only=True):
    """What the burst guard holds.

    Attributes:
        groups: by rule, of the oldest 5,000.
        count: all of it.
        more: there are more than the groups count.
    """

    groups: list[HeldGroup]
    count: int
    more: bool


class QuarantinedBody(msgspec.Struct, frozen=True, kw_only=True):
    """A signed delivery that could not be read, without its body.

    Attributes:
        id: of the entry.
        received_ms: when it came in, Unix milliseconds.
        reason: why it could not be read.
        size_bytes: of the body.
        whole: all of it was kept; else it cannot be retried.
    """

    id: str
    received_ms: int
    reason: str
    size_bytes: int
    whole: bool


class QuarantineView(msgspec.Struct, frozen=True, kw_only=True):
    """Quarantined deliveries, newest first.

    Attributes:
        bodies: a page of them.
        next: where the next page begins; null after the last.
        count: all of them.
    """

    bodies: list[QuarantinedBody]
    next: str | None
    count: int


class QuarantinedWhole(msgspec.Struct, frozen=True, kw_only=True):
    """A signed delivery that could not be read, with its body, which may hold personal data.

    Attributes:
        about: what it is.
        body: its start, at most 64 KiB; what is no UTF-8 is replaced.
    """

    about: QuarantinedBody
    body: str


class HaltView(msgspec.Struct, frozen=True, kw_only=True):
    """Why no call leaves.

    Attributes:
        reason: in words.
        by_person: a person has halted calls, and only a person lifts it.
        since_ms: Unix milliseconds.
    """

    reason: str
    by_person: bool
    since_ms: int


class BreakerView(msgspec.Struct, frozen=True, kw_only=True):
    """A field that is left alone, as Close took too long again and again.

    Attributes:
        field: its name.
        field_id: Close's id of it.
        rule: whose calls those were.
        timeouts: in a row.
        until_ms: when one call is tried, Unix milliseconds.
        hint: what to do.
    """

    field: str
    field_id: str
    rule: str
    timeouts: int
    until_ms: int
    hint: str


class BrakesView(msgspec.Struct, frozen=True, kw_only=True):
    """What keeps calls from leaving.

    Attributes:
        halt: null while calls leave.
        breakers: fields that are left alone.
        waiting: enrichments that are planned or wait: what a resumption lets go, over time.
    """

    halt: HaltView | None
    breakers: list[BreakerView]
    waiting: int
