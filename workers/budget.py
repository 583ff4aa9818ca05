"""Which budgets a call is charged to, and when they open again. Pure.

One credit is one call. A budget counts per day and per month, for the organization and for a rule, in the
time zone of `BUDGET_TIMEZONE`. The counters are in Redis; the script that permits a call (call.lua) reserves
a credit in all of them or in none.
"""

from __future__ import annotations

import calendar
import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service import keys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.rules import Budget, OnExhausted, Rule, RuleBook

KEPT_SECONDS = 40 * 24 * 3600
"""How long a window's counter outlives its month, for reports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One ceiling as it stands at a moment.

    Attributes:
        scope: `all`, or `rule:` and the rule's name.
        period: `day` or `month`.
        key: of its counter in Redis.
        limit: credits it allows.
        ends_ms: when the next window begins, Unix milliseconds.
        on_exhausted: what becomes of what it has no credit for.
        words: what people call it, such as `500 credits today for all rules`.
    """

    scope: str
    period: str
    key: str
    limit: int
    ends_ms: int
    on_exhausted: OnExhausted
    words: str

    @property
    def expires_ms(self) -> int:
        """When its counter may be forgotten, Unix milliseconds."""
        return self.ends_ms + KEPT_SECONDS * 1000


def windows_of(rulebook: RuleBook, rule: Rule, *, now_ms: int, zone: dt.tzinfo) -> tuple[Window, ...]:
    """The ceilings that a call for a rule falls under now, the organization's first.

    Args:
        rulebook: for the organization's budget.
        rule: for its own.
        now_ms: the time, Unix milliseconds.
        zone: where days and months begin.
    """
    now = dt.datetime.fromtimestamp(now_ms / 1000, zone)
    found = list(_windows(rulebook.budget, "all", "for all rules", now))
    found += _windows(rule.budget, f"rule:{rule.name}", f"for rule {rule.name}", now)
    return tuple(found)


def all_windows(rulebook: RuleBook, *, now_ms: int, zone: dt.tzinfo) -> tuple[Window, ...]:
    """Every ceiling of the rules in force, each once.

    Args:
        rulebook: the rules.
        now_ms: the time, Unix milliseconds.
        zone: where days and months begin.
    """
    found = {
        window.key: window
        for rule in rulebook.enabled
        for window in windows_of(rulebook, rule, now_ms=now_ms, zone=zone)
    }
    return tuple(found.values())


def _windows(budget: Budget | None, scope: str, whom: str, now: dt.datetime) -> Iterator[Window]:
    if budget is None:
        return
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if budget.per_day is not None:
        yield Window(
            scope=scope,
            period="day",
            key=keys.spent(scope, now.strftime("%Y-%m-%d")),
            limit=budget.per_day,
            ends_ms=_next(midnight + dt.timedelta(days=1), now),
            on_exhausted=budget.on_exhausted,
            words=f"{budget.per_day} credits a day {whom}",
        )
    if budget.per_month is not None:
        days = calendar.monthrange(now.year, now.month)[1]
        yield Window(
            scope=scope,
            period="month",
            key=keys.spent(scope, now.strftime("%Y-%m")),
            limit=budget.per_month,
            ends_ms=_next(midnight.replace(day=1) + dt.timedelta(days=days), now),
            on_exhausted=budget.on_exhausted,
            words=f"{budget.per_month} credits a month {whom}",
        )


def _next(midnight: dt.datetime, now: dt.datetime) -> int:
    """When it is next midnight, Unix milliseconds; where clocks go back over midnight there are two."""
    # wall-clock arithmetic, then the zone's own offset: a day with a change of clocks has 23 or 25 hours
    ends = midnight.timestamp()
    return int(1000 * (ends if ends > now.timestamp() else midnight.replace(fold=1).timestamp()))
