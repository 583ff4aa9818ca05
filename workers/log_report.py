"""What walking Close's event log has found. Pure values."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datetime as dt

    from workers.log_walk import Pair


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a walk through the log of one kind of event, or of several together, has found.

    Attributes:
        events: events looked at.
        matched: those of them that rules want.
        missed: those of the matched ones that had not been planned.
        planned: enrichments planned because of that, the held ones too.
        held: how many of these the burst guard holds.
        unreadable: events that are none, or could not be planned.
    """

    events: int = 0
    matched: int = 0
    missed: int = 0
    planned: int = 0
    held: int = 0
    unreadable: int = 0

    @property
    def credits_at_most(self) -> int:
        """What the missed enrichments cost at most: one call each."""
        return self.planned


@dataclass(frozen=True, slots=True, kw_only=True)
class PairReport:
    """One kind of event, walked.

    Attributes:
        pair: object type and action.
        since: where the window began.
        findings: what was in it.
        problem: why the window could not be drained, or None.
    """

    pair: Pair
    since: dt.datetime
    findings: Findings
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All kinds of events that the rules want, walked."""

    pairs: tuple[PairReport, ...] = ()

    @property
    def total(self) -> Findings:
        """The findings of all of them together."""
        counts: Counter[str] = Counter()
        for one in self.pairs:
            counts.update({name: getattr(one.findings, name) for name in Findings.__slots__})
        return Findings(**counts)

    @property
    def drained(self) -> bool:
        """Whether all windows were."""
        return all(one.problem is None for one in self.pairs)
