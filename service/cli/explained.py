"""How `rules explain` tells an explanation to people."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import msgspec
from rich.text import Text

from service.cli.printing import report_console
from service.durations import format_duration
from service.problem import printable
from service.rules import Mode
from service.verdicts import Moment, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.condition_trace import ConditionTrace, SeenValue
    from service.explanation import Explanation, RuleExplanation

LONGEST_VALUE = 100
_MARKS = {True: ("true", "green"), False: ("false", "red"), None: ("?", "yellow")}
_STYLES = {Outcome.CALL: "bold green", Outcome.NOT_JUDGED: "bold yellow"}
_BRIEF = frozenset({Outcome.OTHER_EVENT, Outcome.CANNOT_RUN, Outcome.DISABLED})
"""Outcomes that one line says all about."""


def show_explanation(explanation: Explanation, *, zone: dt.tzinfo) -> None:
    """Print an explanation.

    Args:
        explanation: what is shown, the record's values too.
        zone: for times.
    """
    console = report_console(highlight=False)

    def line(text: str, style: str = "") -> None:
        console.print(Text(printable(text), style=style), soft_wrap=True)

    line(_headline(explanation))
    if explanation.ignored is not None:
        line(f"No rule is asked: {explanation.ignored}.")
    else:
        rules = f"{explanation.calls or 'None'} of {_count(len(explanation.rules), 'rule')}"
        price = _count(explanation.credits_at_most, "credit")
        line(f"{rules} would ask Close{f', for at most {price}' if explanation.credits_at_most else ''}.")
    for limit in explanation.limits:
        line(limit, "yellow")
    for rule in explanation.rules:
        console.print()
        line(f"{rule.rule}: {_outcome(rule)}", _STYLES.get(rule.outcome, "bold"))
        if rule.outcome not in _BRIEF:
            for name, told in _details(rule, zone):
                console.print(Text.assemble((f"  {name:<6}  ", "dim"), told), soft_wrap=True)


def _headline(explanation: Explanation) -> str:
    if explanation.event_id is None:
        return f"{explanation.object_id}, as if it had just been created"
    return f"{explanation.type} {explanation.event_id} of {explanation.object_id}"


def _outcome(rule: RuleExplanation) -> str:
    if rule.outcome is Outcome.CALL:
        when = f", {format_duration(rule.settle_seconds)} after the event" if rule.settle_seconds else ""
        return f"Close would be asked{when}"
    if rule.outcome is Outcome.NOT_JUDGED:
        return f"cannot be told: {rule.reason}"
    return f"not called: {rule.reason}"


def _details(rule: RuleExplanation, zone: dt.tzinfo) -> Iterator[tuple[str, Text]]:
    field_id = "" if rule.field_id in {None, rule.field} else f" ({rule.field_id})"
    yield "field", Text(printable(f"{rule.field_name or rule.field}{field_id}"))
    if rule.condition is not None:
        yield from _condition(rule.condition)
    if rule.judged is not None:
        yield "judged", Text(_moment(rule))
    yield "how", Text(printable(", ".join(_manner(rule))))
    for budget in rule.budgets:
        left = "" if budget.left is None else f"{budget.left} left of "
        yield "budget", Text(printable(f"{left}{budget.words}"))
    if rule.recorded is not None:
        known = rule.recorded
        at = dt.datetime.fromtimestamp(known.at_ms / 1000, zone).strftime("%Y-%m-%d %H:%M %Z")
        cost = _count(known.credits, "credit")
        yield "ledger", Text(printable(f"{known.state} on {at} by rule {known.rule}, for {cost}"))


def _condition(trace: ConditionTrace) -> Iterator[tuple[str, Text]]:
    name = "when"
    for part in trace.parts:
        mark, style = _MARKS[part.met]
        yield name, Text.assemble((f"{mark:<5}", style), "  ", printable(part.source))
        name = ""
    name = "saw"
    for value in trace.values:
        yield name, Text(_seen(value))
        name = ""


def _seen(value: SeenValue) -> str:
    if not value.known:
        return printable(f"{value.name} is not known")
    if not value.present:
        return printable(f"{value.name} is absent")
    told = msgspec.json.encode(value.value).decode()
    shown = told if len(told) <= LONGEST_VALUE else f"{told[: LONGEST_VALUE - 1]}…"
    return printable(f"{value.name} = {shown}")


def _moment(rule: RuleExplanation) -> str:
    if rule.judged is Moment.ACCEPT:
        return "when the event arrives, on its own data"
    return f"{format_duration(rule.settle_seconds)} after the event, on a fresh read"


def _manner(rule: RuleExplanation) -> Iterator[str]:
    yield f"mode {rule.mode}" + (" (a filled field is not called for)" if rule.mode is Mode.FILL else "")
    yield f"priority {rule.priority}"
    if rule.after:
        yield f"after {', '.join(rule.after)}"
    if rule.sample < 1:
        yield f"{'in' if rule.in_sample else 'not in'} the sample of {rule.sample * 100:g}%, now and always"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
