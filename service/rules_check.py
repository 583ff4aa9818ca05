"""What is wrong between the rules of one file: names, order, loops and needless doubles. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from service.problem import Level, nearest, shown
from service.rules import Mode
from service.schema import folded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from service.rules import Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A problem with the value at `path` of the rules file."""

    path: tuple[str | int, ...]
    message: str
    suggestion: str | None = None
    level: Level = Level.ERROR


def check_rules(rules: Mapping[int, Rule], *, names: Mapping[int, str]) -> Iterator[Finding]:
    """All findings between rules.

    Args:
        rules: the rules that could be read, by their index in the file.
        names: the names of all rules, also of those that could not be read.
    """
    yield from _repeated_names(names)
    yield from _order(rules, names=names)
    yield from _cycles(rules)
    yield from _shadowed(rules)


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


def _shadowed(rules: Mapping[int, Rule]) -> Iterator[Finding]:
    """Rules that come too late: an earlier one fills the same field on the same events and condition."""
    first: dict[object, int] = {}
    for index, rule in rules.items():
        if not rule.enabled or rule.mode is Mode.PREVIEW:
            continue
        events = frozenset((trigger.action, frozenset(map(folded, trigger.fields))) for trigger in rule.on)
        condition = None if rule.when is None else rule.when.source.strip()
        key = (rule.object_type, folded(rule.field), events, condition)
        if rule.mode is Mode.FILL and key in first:
            earlier = first[key]
            message = (
                f"fills the same field on the same events and condition as rules[{earlier}], "
                f"{shown(rules[earlier].name)}, so it will find the field filled"
            )
            yield Finding(path=("rules", index), message=message, level=Level.WARNING)
        elif rule.sample == 1:
            first.setdefault(key, index)
