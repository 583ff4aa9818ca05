"""Which dead letters are wanted, and their places in the list of all. Pure."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.enrichment import NEEDS_A_PERSON

if TYPE_CHECKING:
    from collections.abc import Iterable

    from service.enrichment import Entry, State

_CURSOR = re.compile(r"([0-9]{1,15})-([a-z2-7]{1,40})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which dead letters; what is None does not matter.

    Attributes:
        rule: of this rule.
        reason: with these words somewhere in the reason, whatever their case.
        state: dead, held or rejected.
        object_id: of this lead or contact.
        older_seconds: that ended at least so long ago.
        newer_seconds: that ended at most so long ago.
    """

    rule: str | None = None
    reason: str | None = None
    state: State | None = None
    object_id: str | None = None
    older_seconds: float | None = None
    newer_seconds: float | None = None

    def takes(self, entry: Entry) -> bool:
        """Whether an entry is one of them, its age aside."""
        return (
            entry.state in NEEDS_A_PERSON
            and self.rule in {None, entry.rule}
            and self.state in {None, entry.state}
            and self.object_id in {None, entry.object_id}
            and (self.reason is None or self.reason.casefold() in entry.reason.casefold())
        )

    def span_ms(self, *, now_ms: int) -> tuple[int, int]:
        """From when to when they ended, Unix milliseconds, both included."""
        newest = now_ms - round((self.older_seconds or 0.0) * 1000)
        oldest = 0 if self.newer_seconds is None else now_ms - round(self.newer_seconds * 1000)
        return oldest, newest


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Place:
    """A place in the index: when an entry ended, and its id."""

    ended_ms: int
    id: str

    def __str__(self) -> str:
        """As it is handed to people and taken back from them."""
        return f"{self.ended_ms}-{self.id}"

    @classmethod
    def read(cls, cursor: str) -> Place | None:
        """The place that a text stands for, or None where it stands for none."""
        match = _CURSOR.fullmatch(cursor)
        return None if match is None else cls(ended_ms=int(match[1]), id=match[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some dead letters, the newest first; `next` is where the following page begins, None after the last."""

    entries: tuple[Entry, ...]
    next: Place | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """How many dead letters of one rule have ended in one state."""

    rule: str
    state: State
    count: int

    @property
    def credits_at_most(self) -> int:
        """What retrying them costs at most: one call each, none where the field turns out to be filled."""
        return self.count


def groups(entries: Iterable[Entry], *, so_far: Counter[tuple[str, State]] | None = None) -> list[Group]:
    """How many entries there are of each rule and state, the most first.

    Args:
        entries: what is counted.
        so_far: what was counted before; it is counted on.
    """
    counts = Counter() if so_far is None else so_far
    counts.update((entry.rule, entry.state) for entry in entries)
    return [Group(rule=rule, state=state, count=count) for (rule, state), count in counts.most_common()]
