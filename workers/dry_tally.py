"""What rules would have done to the events of a while, added up. Pure; nothing of a record but ids is kept.

Each event is judged by `service.verdicts`, as `rules explain` does, on the event's own data: a rule that
settles would have been judged on a fresh read some seconds later, which no log tells.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from service.verdicts import Outcome, judge_rules
from workers.log_walk import parsed_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from service.event import Event
    from service.knowledge import Knowledge
    from service.rules import Budget
    from service.verdicts import Verdict

DAYS_IN_A_MONTH = 30

Target: TypeAlias = tuple[str, str]
"""The ids of a record and of a custom field."""

_NOT_ASKED = frozenset({Outcome.OTHER_EVENT, Outcome.CANNOT_RUN, Outcome.DISABLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleForecast:
    """One rule over all events.

    Attributes:
        rule: its name.
        problem: why it cannot run, or None.
        events: events that it listens to.
        wanted: those for which Close would have been asked.
        not_judged: those that came without the data that its condition needs.
        refused: the others, by the reason.
        fields: fields of records that it wanted, each once.
        credits_by_day: calls at most, by the day of the event. A `created` event starts a field once; each
            `updated` or `merged` one may start it again.
    """

    rule: str
    problem: str | None
    events: int
    wanted: int
    not_judged: int
    refused: Mapping[str, int]
    fields: int
    credits_by_day: Mapping[str, int]

    @property
    def credits_at_most(self) -> int:
        """One for each call."""
        return sum(self.credits_by_day.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """All rules of a file over all events.

    Attributes:
        rules: the enabled rules, in the file's order.
        events: events looked at, each once, whether a rule listens to them or not.
        without_data: those of them that came without the record.
        targets: what Close would have been asked for, by the rule that wanted it first.
    """

    rules: tuple[RuleForecast, ...]
    events: int
    without_data: int
    targets: Mapping[Target, str]

    @property
    def credits_by_day(self) -> Counter[str]:
        """Calls at most of all rules together."""
        total: Counter[str] = Counter()
        for rule in self.rules:
            total.update(rule.credits_by_day)
        return total

    @property
    def credits_at_most(self) -> int:
        """Calls at most of all rules together."""
        return sum(rule.credits_at_most for rule in self.rules)


@dataclass(slots=True)
class _Counts:
    events: int = 0
    wanted: int = 0
    not_judged: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    targets: set[Target] = field(default_factory=set)
    days: Counter[str] = field(default_factory=Counter)


class Tally:
    """Adds up events for one rules file.

    Args:
        knowledge: the rules and Close's custom fields.
        own_api_key_id: our API key's id, whose updates are ours; None when it is not known.
        zone: where days begin.
    """

    def __init__(self, knowledge: Knowledge, *, own_api_key_id: str | None, zone: dt.tzinfo) -> None:
        self._knowledge = knowledge
        self._own_api_key_id = own_api_key_id
        self._zone = zone
        self._counts = {rule.name: _Counts() for rule in knowledge.rulebook.enabled}
        self._met: set[str] = set()
        self._created: set[Target] = set()
        self._targets: dict[Target, str] = {}
        self._without_data = 0

    def add(self, event: Event) -> None:
        """Judge an event by every rule; one that was met before counts once."""
        if event.id in self._met:
            return
        self._met.add(event.id)
        self._without_data += event.data_json is None
        day = day_of(event, self._zone)
        verdicts = judge_rules(event, knowledge=self._knowledge, own_api_key_id=self._own_api_key_id)
        for verdict in verdicts.rules:
            if verdict.outcome not in _NOT_ASKED:
                self._count(verdict, day)

    def _count(self, verdict: Verdict, day: str) -> None:
        counts = self._counts[verdict.rule.name]
        counts.events += 1
        enrichment = verdict.enrichment
        if verdict.outcome is Outcome.NOT_JUDGED:
            counts.not_judged += 1
        elif verdict.outcome is not Outcome.CALL or enrichment is None:
            counts.refused[verdict.reason] += 1
        else:
            counts.wanted += 1
            target = (enrichment.object_id, enrichment.target.field_id)
            counts.targets.add(target)
            self._targets.setdefault(target, verdict.rule.name)
            if enrichment.reopens or target not in self._created:
                counts.days[day] += 1
            if not enrichment.reopens:
                self._created.add(target)

    def forecast(self) -> Forecast:
        """What has been added up so far."""
        problems = {one.rule.name: one.problem for one in self._knowledge.bindings.unbound}
        return Forecast(
            rules=tuple(
                RuleForecast(
                    rule=name,
                    problem=problems.get(name),
                    events=counts.events,
                    wanted=counts.wanted,
                    not_judged=counts.not_judged,
                    refused=dict(counts.refused.most_common()),
                    fields=len(counts.targets),
                    credits_by_day=dict(sorted(counts.days.items())),
                )
                for name, counts in self._counts.items()
            ),
            events=len(self._met),
            without_data=self._without_data,
            targets=dict(self._targets),
        )


def day_of(event: Event, zone: dt.tzinfo) -> str:
    """The day of an event, such as 2026-11-23; `unknown` where its date cannot be read."""
    moment = parsed_time(event.date_updated)
    return "unknown" if moment is None else moment.astimezone(zone).date().isoformat()


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetForecast:
    """How one ceiling would have fared.

    Attributes:
        words: such as `500 credits a day for all rules`.
        limit: credits it allows.
        reached: on how many of the days; None for a month's.
        days: how many days there were.
        month: credits in a month at that rate; None for a day's.
    """

    words: str
    limit: int
    reached: int | None
    days: int
    month: int | None

    @property
    def short(self) -> bool:
        """Whether it would not have been enough."""
        return bool(self.reached) or (self.month is not None and self.month >= self.limit)


def month_of(credits_at_most: int, *, seconds: float) -> int:
    """Credits in 30 days, at the rate of so many within so many seconds."""
    return round(credits_at_most * DAYS_IN_A_MONTH * 86400 / seconds)


def budgets_of(
    knowledge: Knowledge, forecast: Forecast, *, days: Sequence[str], seconds: float
) -> tuple[BudgetForecast, ...]:
    """Every ceiling of the rules file against what would have been called.

    Args:
        knowledge: the same rules.
        forecast: what would have been called.
        days: the days looked at.
        seconds: the time looked at.
    """

    def ceilings(budget: Budget | None, whom: str, by_day: Mapping[str, int]) -> list[BudgetForecast]:
        found = []
        if budget is not None and budget.per_day is not None:
            limit = budget.per_day
            reached = sum(by_day.get(day, 0) >= limit for day in days)
            words = f"{limit} credits a day {whom}"
            found.append(
                BudgetForecast(words=words, limit=limit, reached=reached, days=len(days), month=None)
            )
        if budget is not None and budget.per_month is not None:
            limit = budget.per_month
            month = month_of(sum(by_day.values()), seconds=seconds)
            words = f"{limit} credits a month {whom}"
            found.append(BudgetForecast(words=words, limit=limit, reached=None, days=len(days), month=month))
        return found

    by_rule = {one.rule: one.credits_by_day for one in forecast.rules}
    of_all = ceilings(knowledge.rulebook.budget, "for all rules", forecast.credits_by_day)
    of_each = [
        one
        for rule in knowledge.rulebook.enabled
        for one in ceilings(rule.budget, f"for rule {rule.name}", by_rule[rule.name])
    ]
    return (*of_all, *of_each)


def days_between(since: dt.datetime, until: dt.datetime, zone: dt.tzinfo) -> tuple[str, ...]:
    """The days that a while touches, the first and the last one too."""
    first, last = since.astimezone(zone).date(), until.astimezone(zone).date()
    return tuple((first + dt.timedelta(days=number)).isoformat() for number in range((last - first).days + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlyOne:
    """A field of a record that only one of two rules files would have had called for."""

    object_id: str
    field_id: str
    rule: str


def only_in(one: Forecast, other: Forecast) -> tuple[OnlyOne, ...]:
    """What only the first of two forecasts has, in its order."""
    return tuple(
        OnlyOne(object_id=object_id, field_id=field_id, rule=rule)
        for (object_id, field_id), rule in one.targets.items()
        if (object_id, field_id) not in other.targets
    )
