"""A rules file and everything that is wrong with it, also in the light of Close's custom fields. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.binding import examine
from service.problem import Level
from service.stand_ins import STAND_IN
from service.trigger_text import TriggerFault, read_triggers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from service.binding import Misfit
    from service.problem import Problem
    from service.rules import ObjectType, Rule
    from service.rules_file import LoadedRules
    from service.schema import Schema
    from service.yaml_tree import Path, Tree


def all_problems(loaded: LoadedRules, *, schemas: Mapping[ObjectType, Schema]) -> tuple[Problem, ...]:
    """Problems and warnings of a file, in the order of its lines.

    Args:
        loaded: what was read; where it has problems, what could be read is looked at nevertheless.
        schemas: the custom fields by object type; nothing is asked of the rules of one that is missing.
    """
    found = [*loaded.problems, *loaded.warnings]
    told = {(problem.path, problem.message) for problem in found}
    _, misfits = examine(loaded.readable, schemas=schemas)
    for index, of_rule in misfits.items():
        rule = loaded.readable[index]
        for misfit in of_rule:
            is_stand_in = misfit.part == "field" and rule.field.startswith(STAND_IN)
            # of a rule of which something is left out, nobody can say what runs before it
            if is_stand_in or (misfit.part == "" and loaded.problems):
                continue
            problem = _placed(loaded.tree, index, rule, misfit)
            if (problem.path, problem.message) not in told:
                found.append(problem)
    return tuple(sorted(found, key=lambda problem: (problem.line, problem.column)))


def _placed(tree: Tree, index: int, rule: Rule, misfit: Misfit) -> Problem:
    level = misfit.level if rule.enabled else Level.WARNING
    suggestion = next(iter(misfit.nearest), None)
    path: Path = ("rules", index)
    if misfit.part == "on":
        path, column = _updated(tree, (*path, "on"), misfit.name)
        at = tree.inside(path, line=1, column=column)
        return tree.problem(path, misfit.message, suggestion=suggestion, level=level, at=at)
    if misfit.condition is not None:
        at = tree.inside((*path, "when"), line=misfit.condition.line, column=misfit.condition.column)
        return tree.problem((*path, "when"), misfit.message, suggestion=suggestion, level=level, at=at)
    path = (*path, misfit.part) if misfit.part else path
    return tree.problem(path, misfit.message, suggestion=suggestion, level=level)


def _updated(tree: Tree, path: Path, name: str) -> tuple[Path, int]:
    """The item of `on` that names a field, and its column there; the field may come from `defaults`."""
    if path not in tree.values:
        path = ("defaults", "on")
    items = _value(tree, path)
    start = next(
        written.index
        for written in read_triggers(items)
        if not isinstance(written.meaning, TriggerFault) and name in written.meaning.fields
    )
    # a trigger's fields may be spread over several items, and so may a quoted name
    place = next((place for place in range(start, len(items)) if name in items[place]), start)
    return (*path, place), max(0, items[place].find(name)) + 1


def _value(tree: Tree, path: Path) -> list[str]:
    value: Any = tree.data
    for step in path:
        value = value[step]
    return list(value)


def rendered(problems: Sequence[Problem], *, source: str) -> str:
    """The problems for people, and how many there are; empty where there is none."""
    if not problems:
        return ""
    return "\n\n".join([*(problem.render() for problem in problems), f"{source}: {counted(problems)}"])


def counted(problems: Iterable[Problem]) -> str:
    """How many problems and warnings, in words."""
    levels = [problem.level for problem in problems]
    errors, warnings = levels.count(Level.ERROR), levels.count(Level.WARNING)
    parts = [(errors, "problem"), (warnings, "warning")]
    return ", ".join(f"{count} {word}{'s' if count > 1 else ''}" for count, word in parts if count)


def described(problem: Problem) -> dict[str, Any]:
    """A problem as plain data."""
    return {
        "path": problem.source,
        "line": problem.line,
        "column": problem.column,
        "where": problem.path,
        "message": problem.message,
        "suggestion": problem.suggestion,
        "severity": str(problem.level),
    }
