"""What Redis remembers that bears on an event, for `service.explain`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from service import keys
from service.explanation import BudgetLeft
from service.redis_text import text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from service.enrichment import Entry
    from service.event import Event
    from service.ledger import Ledger


class Ceiling(Protocol):
    """A budget that a call falls under; see `workers.budget.Window`."""

    @property
    def key(self) -> str:
        """Of its counter."""

    @property
    def limit(self) -> int:
        """Credits that it allows."""

    @property
    def words(self) -> str:
        """What people call it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is remembered.

    Attributes:
        entries: the record's enrichments, by field id.
        planned_before: this event was planned already, in the version it is in.
        budgets: what is left, by the rule's name.
    """

    entries: Mapping[str, Entry]
    planned_before: bool
    budgets: Mapping[str, tuple[BudgetLeft, ...]]


async def recall(ledger: Ledger, event: Event, *, windows: Mapping[str, Sequence[Ceiling]]) -> Memory:
    """Ask Redis.

    Args:
        ledger: with the record's enrichments.
        event: what is to be explained.
        windows: the budgets of each rule, by its name.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    counters = sorted({window.key for of_rule in windows.values() for window in of_rule})
    entries = await ledger.entries_of(event.object_id)
    stamp = await ledger.redis.get(keys.event(event.id)) if event.id else None
    counts = await ledger.redis.mget(counters) if counters else []
    return Memory(
        entries={entry.field_id: entry for entry in entries},
        planned_before=stamp is not None and text(stamp) >= event.date_updated,
        budgets=budgets_left(
            windows, spent={key: int(count or 0) for key, count in zip(counters, counts, strict=True)}
        ),
    )


def budgets_left(
    windows: Mapping[str, Sequence[Ceiling]], *, spent: Mapping[str, int]
) -> dict[str, tuple[BudgetLeft, ...]]:
    """What is left of budgets, by the rule's name.

    Args:
        windows: the budgets of each rule.
        spent: by counter; one that is missing is not known.
    """
    return {
        name: tuple(BudgetLeft(words=one.words, limit=one.limit, spent=spent.get(one.key)) for one in of_rule)
        for name, of_rule in windows.items()
    }
