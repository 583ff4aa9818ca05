"""What the Rules page shows: the rules that this process runs, what each did and cost, and what is wrong."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import msgspec

from service import keys
from service.costs import METRICS, read_costs, sum_by
from service.dashboard.glance import BudgetLine, Costs
from service.dashboard.reading import read_budgets
from service.durations import format_duration
from service.metrics_catalogue import DONE, decode_series
from service.redis_text import raw_hash
from service.rules import Action
from service.rules_in_force import disagreement, file_problem, rules_in_force

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis.asyncio import Redis

    from service.brakes import OpenBreaker
    from service.dashboard.desk import Desk
    from service.rules import Rule, Trigger

DAYS = 30


class FieldPause(msgspec.Struct, frozen=True, kw_only=True):
    """A field that is not called for now, as Close took too long again and again.

    Attributes:
        timeouts: in a row.
        until_ms: when one call is tried, Unix milliseconds.
    """

    timeouts: int
    until_ms: int


class RuleLine(msgspec.Struct, frozen=True, kw_only=True):
    """One rule as loaded.

    Attributes:
        name: of the rule.
        object_type: what it is for.
        field: the custom field as the rule names it.
        field_id: Close's id of it; "" where it is not known.
        field_name: its name in Close; "" where it is not known.
        on: the events that it listens to.
        condition: its `when`; "" for none.
        mode: what becomes of a value.
        settle: how long the record is left alone first, as people write it.
        priority: its place in the queues.
        after: rules that come first.
        sample: the share of records that it wants.
        enabled: false for one that never runs.
        problem: why it cannot run; "" where it can.
        cost: of the last 30 days.
        outcomes: enrichments that have ended, by state, since metrics are counted.
        budgets: its own.
        pause: of its field; null while it is called for.
        line: where it starts in the file.
    """

    name: str
    object_type: str
    field: str
    field_id: str
    field_name: str
    on: list[str]
    condition: str
    mode: str
    settle: str
    priority: str
    after: list[str]
    sample: float
    enabled: bool
    problem: str
    cost: Costs
    outcomes: dict[str, int]
    budgets: list[BudgetLine]
    pause: FieldPause | None
    line: int


class RulesView(msgspec.Struct, frozen=True, kw_only=True):
    """The rules that this process runs.

    Attributes:
        digest: names the version of the file.
        rules: in the file's order.
        budgets: those for all rules.
        warnings: what runs and should be looked at.
        file_problem: why the file as it is now cannot be used, so older rules stay; "" where it can.
        disagreement: which processes run other rules; "" where all run the same.
        fields_known: whether Close's custom fields are known, without which nothing can be planned.
        days: what `cost` covers.
    """

    digest: str
    rules: list[RuleLine]
    budgets: list[BudgetLine]
    warnings: list[str]
    file_problem: str
    disagreement: str
    fields_known: bool
    days: int


async def read_rules(desk: Desk) -> RulesView:
    """Look once.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    knowledge = desk.knowledge()
    today = dt.datetime.fromtimestamp(desk.clock(), desk.zone).date()
    span = [today - dt.timedelta(days=one) for one in range(DAYS)]
    costs = sum_by(await read_costs(desk.redis, span), "rule")
    outcomes = await _outcomes(desk.redis)
    budgets = await read_budgets(desk)
    breakers = {one.field_id: one for one in await desk.ledger.brakes.open_breakers()}
    said = await rules_in_force(desk.redis)
    fields = {one.rule.name: (one.field_id, one.field_name) for one in knowledge.bindings.bound}
    problems = {one.rule.name: one.problem for one in knowledge.bindings.unbound}
    lines = []
    for rule in knowledge.rulebook.rules:
        field_id, field_name = fields.get(rule.name, ("", ""))
        lines.append(
            _line(
                rule,
                field_id=field_id,
                field_name=field_name,
                problem=problems.get(rule.name, ""),
                counts=costs.get(rule.name, {}),
                outcomes=outcomes.get(rule.name, {}),
                budgets=[one for one in budgets if one.scope == f"rule:{rule.name}"],
                breaker=breakers.get(field_id),
            )
        )
    return RulesView(
        digest=knowledge.rulebook.digest,
        rules=lines,
        budgets=[one for one in budgets if one.scope == "all"],
        warnings=list(knowledge.bindings.warnings),
        file_problem=file_problem(said),
        disagreement=disagreement(said),
        fields_known=knowledge.complete,
        days=DAYS,
    )


def _line(
    rule: Rule,
    *,
    field_id: str,
    field_name: str,
    problem: str,
    counts: Mapping[str, int],
    outcomes: Mapping[str, int],
    budgets: list[BudgetLine],
    breaker: OpenBreaker | None,
) -> RuleLine:
    return RuleLine(
        name=rule.name,
        object_type=str(rule.object_type),
        field=rule.field,
        field_id=field_id,
        field_name=field_name,
        on=[_written(trigger) for trigger in rule.on],
        condition=rule.when.source if rule.when is not None else "",
        mode=str(rule.mode),
        settle=format_duration(rule.settle_seconds),
        priority=str(rule.priority),
        after=list(rule.after),
        sample=rule.sample,
        enabled=rule.enabled,
        problem=problem,
        cost=Costs(**{metric: counts.get(metric, 0) for metric in METRICS}),
        outcomes=dict(outcomes),
        budgets=budgets,
        pause=None if breaker is None else FieldPause(timeouts=breaker.timeouts, until_ms=breaker.until_ms),
        line=rule.line,
    )


def _written(trigger: Trigger) -> str:
    """A trigger as the rules file has it."""
    fields = f"({', '.join(trigger.fields)})" if trigger.action is Action.UPDATED else ""
    return f"{trigger.action}{fields}"


async def _outcomes(redis: Redis) -> dict[str, dict[str, int]]:
    """Enrichments that have ended, by rule and state, as counted for metrics: a few thousand numbers."""
    found: dict[str, dict[str, int]] = {}
    for name, count in raw_hash(await redis.hgetall(keys.METRICS)).items():
        series = decode_series(name)
        if series is not None and series.family == DONE.name:
            rule, state = series.words
            found.setdefault(rule, {})[state] = int(count)
    return found
