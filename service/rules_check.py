"""What is wrong between the rules of one file: names, order, rings, rules that never run, budgets. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from service import cel_text
from service.durations import format_duration
from service.problem import Level, nearest, shown
from service.record_names import FORGOTTEN_ATTRIBUTES
from service.schema import folded

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from service.condition import Condition
    from service.rules import Action, Budget, Rule, Trigger

_WINDOWS = ("per_day", "per_month")
_INSTEAD = {"changed_fields": ", and on: [updated(...)] names the fields that matter"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A problem with the value at `path` of the rules file."""

    path: tuple[str | int, ...]
    message: str
    suggestion: str | None = None
    level: Level = Level.ERROR


def check_rules(
    rules: Mapping[int, Rule],
    *,
    names: Mapping[int, str],
    broken: Collection[int] = (),
    budget: Budget | None = None,
) -> Iterator[Finding]:
    """All findings between rules.

    Args:
        rules: the rules that could be read, by their index in the file.
        names: the names of all rules, also of those that could not be read.
        broken: the rules of which something is left out, as it did not fit.
        budget: the file's own budget; None where there is none, or something is wrong with it.
    """
    yield from _repeated_names(names)
    yield from _order(rules, names=names)
    yield from _cycles(rules)
    whole = {index: rule for index, rule in rules.items() if index not in broken}
    yield from _shadowed(whole)
    yield from _samples(rules)
    yield from _asked_too_late(rules)
    yield from _budgets(whole, budget)


def _repeated_names(names: Mapping[int, str]) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for index, name in names.items():
        other = first.setdefault(folded(name), index)
        if other != index:
            message = f"{shown(name)} is the name of rules[{other}] already; case and spaces do not count"
            yield Finding(path=("rules", index, "name"), message=message)


def _order(rules: Mapping[int, Rule], *, names: Mapping[int, str]) -> Iterator[Finding]:
    """What is wrong with each name in `after`."""
    by_name = _by_name(rules)
    known = set(names.values())
    for index, rule in rules.items():
        for place, name in enumerate(rule.after):
            path = ("rules", index, "after", place)
            if name in rule.after[:place]:
                yield Finding(path=path, message=f"{shown(name)} stands twice", level=Level.WARNING)
                continue
            if name == rule.name:
                yield Finding(
                    path=path, message=f"{shown(name)} is this rule itself; it cannot wait for itself"
                )
            elif name not in known:
                suggestion = nearest(name, known - {rule.name})
                yield Finding(path=path, message=f"{shown(name)} is not a rule's name", suggestion=suggestion)
            elif name in by_name:
                other = rules[by_name[name]]
                if other.object_type is not rule.object_type:
                    kinds = f"for {other.object_type}s, and this is one for {rule.object_type}s"
                    yield Finding(path=path, message=f"{shown(name)} is a rule {kinds}")
                elif rule.enabled and not other.enabled:
                    message = f"{shown(name)} is disabled, so there is nothing to wait for"
                    yield Finding(path=path, message=message, level=Level.WARNING)
                elif not _actions(rule) & _actions(other):
                    events = ", ".join(sorted(_actions(other)))
                    message = (
                        f"{shown(name)} runs on other events ({events}), so there is nothing to wait for"
                    )
                    yield Finding(path=path, message=message, level=Level.WARNING)


def _actions(rule: Rule) -> set[Action]:
    return {trigger.action for trigger in rule.on}


def _by_name(rules: Mapping[int, Rule]) -> dict[str, int]:
    """The first rule of each name."""
    return {rule.name: index for index, rule in reversed(list(rules.items()))}


def _cycles(rules: Mapping[int, Rule]) -> Iterator[Finding]:
    """One finding for each ring of rules that wait for each other, at the ring's first rule."""
    by_name = _by_name(rules)
    waits = {
        index: {by_name[name] for name in rule.after if by_name.get(name, index) != index}
        for index, rule in rules.items()
    }
    while (ring := _ring(waits)) is not None:
        start = ring.index(min(ring))
        ordered = [*ring[start:], *ring[:start], ring[start]]
        first, awaited = ordered[0], rules[ordered[1]].name
        told = " -> ".join(shown(rules[index].name) for index in ordered)
        place = rules[first].after.index(awaited)
        yield Finding(
            path=("rules", first, "after", place), message=f"these rules wait for each other: {told}"
        )
        waits = {index: before - set(ring) for index, before in waits.items() if index not in ring}


def _ring(waits: Mapping[int, set[int]]) -> list[int] | None:
    """Rules of which each waits for the next and the last for the first, or None."""
    try:
        TopologicalSorter(waits).prepare()
    except CycleError as error:
        ring: Sequence[int] = error.args[1]
        return list(reversed(ring[1:]))
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """A rule that never runs, as an earlier one has taken its field on each of its events.

    Attributes:
        index: the rule.
        by: the earlier one.
        why: completes the sentence "never runs: ".
    """

    index: int
    by: int
    why: str


def shadows(rules: Mapping[int, Rule]) -> Iterator[Shadow]:
    """The rules that can never run, as `service.planning` gives a field to the first rule that wants it.

    Args:
        rules: by index, in the file's order; fields and those of `updated` are compared as they are written.
    """
    of_field: dict[tuple[str, str], list[int]] = {}
    for index, rule in rules.items():
        if not rule.enabled:
            continue
        earlier = of_field.setdefault((rule.object_type, folded(rule.field)), [])
        for other in earlier:
            before = rules[other]
            how = _taken(before, rule)
            if how is not None:
                why = f"{shown(before.name)}, rules[{other}], comes first for the same field and events{how}"
                yield Shadow(index=index, by=other, why=why)
                break
        earlier.append(index)


def _taken(before: Rule, rule: Rule) -> str | None:
    """How the rule before takes their field whenever this one's events come, or None where it does not."""
    if before.sample < 1 or not _covers(before.on, rule.on):
        return None
    if before.when is None:
        return ", for every record"
    if rule.settle_seconds == 0 and rule.when is not None and _words(before.when) == _words(rule.when):
        return " with the same condition"
    if before.settle_seconds > 0:
        return ", and its condition is judged only after settle, when it has the field"
    return None


def _covers(wider: Iterable[Trigger], narrower: Iterable[Trigger]) -> bool:
    """Whether each event that runs the one runs the other as well."""
    actions = {trigger.action for trigger in wider}
    fields = {folded(name) for trigger in wider for name in trigger.fields}
    return all(
        trigger.action in actions and fields.issuperset(map(folded, trigger.fields)) for trigger in narrower
    )


def _words(condition: Condition) -> tuple[str, ...]:
    return tuple(token.text for token in cel_text.tokens(condition.source))


def _shadowed(rules: Mapping[int, Rule]) -> Iterator[Finding]:
    for shadow in shadows(rules):
        message = f"never runs: {shadow.why}"
        yield Finding(path=("rules", shadow.index), message=message, level=Level.WARNING)


def _samples(rules: Mapping[int, Rule]) -> Iterator[Finding]:
    for index, rule in rules.items():
        if rule.sample == 0 and rule.enabled:
            message = "takes no record at all; to switch the rule off, say enabled: false"
            yield Finding(path=("rules", index, "sample"), message=message, level=Level.WARNING)


def _asked_too_late(rules: Mapping[int, Rule]) -> Iterator[Finding]:
    """Conditions on what is known of the event only at the moment it comes in."""
    for index, rule in rules.items():
        asked = () if rule.when is None or not rule.settle_seconds else rule.when.event_attributes
        for name in asked:
            if name in FORGOTTEN_ATTRIBUTES:
                after = format_duration(rule.settle_seconds)
                message = (
                    f"event.{name} is empty when this is judged, {after} after the event; "
                    f"with settle: 0 it is judged at once{_INSTEAD.get(name, '')}"
                )
                yield Finding(path=("rules", index, "when"), message=message, level=Level.WARNING)


def _budgets(rules: Mapping[int, Rule], budget: Budget | None) -> Iterator[Finding]:
    """Ceilings that say nothing, contradict each other, or let nothing through."""
    if budget is not None:
        yield from _ceilings(budget, ("budget",))
    for index, rule in rules.items():
        if rule.budget is None:
            continue
        path = ("rules", index, "budget")
        yield from _ceilings(rule.budget, path)
        for name in _WINDOWS:
            own, whole = getattr(rule.budget, name), getattr(budget, name, None)
            if own is not None and whole is not None and own > whole:
                message = (
                    f"{shown(str(own))} is above the top-level budget's {name}, {whole}, which ends first"
                )
                yield Finding(path=(*path, name), message=message, level=Level.WARNING)


def _ceilings(budget: Budget, path: tuple[str | int, ...]) -> Iterator[Finding]:
    if budget.per_day is None and budget.per_month is None and budget.burst is None:
        message = "sets no ceiling; give it per_day or per_month"
        yield Finding(path=path, message=message, level=Level.WARNING)
    for name in _WINDOWS:
        if getattr(budget, name) == 0:
            message = "'0' lets no call through"
            yield Finding(path=(*path, name), message=message, level=Level.WARNING)
    if budget.per_day is not None and budget.per_month is not None and budget.per_day > budget.per_month > 0:
        message = f"{shown(str(budget.per_day))} is above per_month, {budget.per_month}, which ends first"
        yield Finding(path=(*path, "per_day"), message=message, level=Level.WARNING)
    if budget.burst is not None and budget.burst.most == 0:
        message = "'0' holds everything, until a person releases it"
        yield Finding(path=(*path, "burst", "most"), message=message, level=Level.WARNING)
