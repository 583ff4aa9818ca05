"""From the options of `backfill` to what is to be filled, or what is wrong with them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.cli.start import give_up
from service.condition import Condition, compile_condition
from service.condition_check import check_condition
from service.durations import nearest_duration, parse_duration
from service.problem import Problem, lines_of, nearest, shown
from service.schema import CustomField
from workers.backfill_order import Order
from workers.backfill_query import read_query
from workers.backfill_walk import FIRST_SECOND

if TYPE_CHECKING:
    from pathlib import Path

    from service.binding import BoundRule
    from service.condition import ConditionProblem
    from service.knowledge import Knowledge
    from service.schema import Schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """The options as they were written; `rules` is None for all that are enabled."""

    rules: tuple[str, ...] | None
    where: str | None = None
    query: Path | None = None
    since: str | None = None
    limit: int | None = None


def order_or_exit(wish: Wish, knowledge: Knowledge, *, now: dt.datetime, zone: dt.tzinfo) -> Order:
    """What is to be filled; or all that is wrong with the options, and exit 2.

    Args:
        wish: the options.
        knowledge: rules and fields; complete.
        now: the present.
        zone: where a day begins.
    """
    problems: list[str] = []
    rules = _rules(wish, knowledge, problems)
    order = Order(
        rules=rules,
        where=_where(wish, rules, knowledge, problems),
        query=_query(wish, problems),
        since=wish.since,
        since_second=_since(wish, problems, now=now, zone=zone),
        limit=wish.limit,
    )
    if problems:
        give_up("\n".join(problems))
    return order


def _rules(wish: Wish, knowledge: Knowledge, problems: list[str]) -> tuple[BoundRule, ...]:
    bindings, rulebook = knowledge.bindings, knowledge.rulebook
    cannot = {one.rule.name: one.problem for one in bindings.unbound}
    wanted = set(wish.rules if wish.rules is not None else (one.name for one in rulebook.enabled))
    names = [one.name for one in rulebook.rules]
    for name in sorted(wanted):
        rule = rulebook.named(name)
        if rule is None:
            near = nearest(name, names)
            hint = f"; did you mean {shown(near)}?" if near else f"; there are {', '.join(names)}"
            problems.append(f"--rule {name}: there is no such rule{hint}")
        elif not rule.enabled:
            problems.append(f"--rule {name}: the rule is disabled; take out `enabled: false` first")
        elif name in cannot:
            problems.append(f"--rule {name}: the rule cannot run: {cannot[name]}")
    if not wanted:
        problems.append("--all: no rule is enabled")
    return tuple(one for one in bindings.bound if one.rule.name in wanted)


def _where(
    wish: Wish, rules: tuple[BoundRule, ...], knowledge: Knowledge, problems: list[str]
) -> Condition | None:
    if wish.where is None or not rules:
        return None
    types = list(dict.fromkeys(one.rule.object_type for one in rules))
    if len(types) > 1:
        both = " and ".join(f"{one}s" for one in types)
        problems.append(f"--where is about one kind of record; these rules fill {both}: use two backfills")
        return None
    compiled = compile_condition(wish.where, object_type=types[0])
    if not isinstance(compiled, Condition):
        problems.append(_rendered(compiled, wish.where))
        return None
    schema = knowledge.schemas[types[0]]
    checked = check_condition(wish.where, object_type=types[0], actions=(), schema=schema)
    problems += (_rendered(one, wish.where) for one in checked)
    problems += _unknown_fields(compiled, schema)
    return compiled


def _rendered(problem: ConditionProblem, source: str) -> str:
    return Problem(
        line=problem.line,
        column=problem.column,
        path="",
        value=None,
        message=f"the condition {problem.message}",
        suggestion=problem.suggestion,
        source="--where",
        source_line=lines_of(source)[problem.line - 1],
    ).render()


def _unknown_fields(condition: Condition, schema: Schema) -> list[str]:
    """The custom fields that a condition names and records of the type do not have."""
    found = []
    for name in condition.custom_fields:
        known = schema.lookup(name)
        if isinstance(known, CustomField) and name in {known.id, known.name}:
            continue
        near = (
            known.name if isinstance(known, CustomField) else nearest(name, (f.name for f in schema.fields))
        )
        hint = f"; did you mean {shown(near)}?" if near else ""
        found.append(f"--where: {shown(name)} is no custom field of {schema.object_type}s in Close{hint}")
    return found


def _query(wish: Wish, problems: list[str]) -> dict[str, Any] | None:
    if wish.query is None:
        return None
    try:
        read = read_query(wish.query.read_bytes())
    except OSError as error:
        read = f"cannot be read: {error.strerror}"
    if isinstance(read, str):
        problems.append(f"--query {wish.query}: {read}")
        return None
    return read


def _since(wish: Wish, problems: list[str], *, now: dt.datetime, zone: dt.tzinfo) -> int:
    if wish.since is None:
        return FIRST_SECOND
    age_seconds = parse_duration(wish.since)
    moment: dt.datetime | None = None
    if age_seconds:
        moment = now - dt.timedelta(seconds=min(age_seconds, now.timestamp()))
    else:
        try:
            moment = dt.datetime.combine(dt.date.fromisoformat(wish.since), dt.time(), zone)
        except ValueError:
            near = nearest_duration(wish.since)
            hint = f"; did you mean {near}?" if near and near != wish.since else ""
            problems.append(
                f"--since {wish.since}: expected a day or an age, such as 2026-01-31 or 90d{hint}"
            )
    if moment is not None and moment > now:
        problems.append(f"--since {wish.since} is in the future")
    return FIRST_SECOND if moment is None else max(FIRST_SECOND, int(moment.timestamp()))
