"""What is wrong with a condition that compiles: kinds that do not go together, no way to be true. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service import cel_text
from service.cel_tree import read_expression
from service.condition import ConditionProblem
from service.condition_never import Never, never_false, never_true
from service.condition_types import type_faults
from service.problem import Level, shown

if TYPE_CHECKING:
    from collections.abc import Collection

    from service.cel_tree import Node
    from service.rules import Action, ObjectType
    from service.schema import Schema


def check_condition(
    source: str, *, object_type: ObjectType, actions: Collection[Action], schema: Schema | None = None
) -> tuple[ConditionProblem, ...]:
    """Everything that can be told without a record, in the order of the text.

    Args:
        source: an expression that `compile_condition` accepts.
        object_type: whose records it judges.
        actions: the events of its rule; empty where they are not known.
        schema: the custom fields of that object type, where they are known.
    """
    tree = read_expression(source)
    if tree is None:
        return ()
    faults = type_faults(tree, source, object_type=object_type, schema=schema)
    found = [
        _problem(source, fault.at, fault.message, suggestion=fault.suggestion, level=fault.level)
        for fault in faults
    ]
    if all(problem.level is Level.WARNING for problem in found):
        found += _constant(tree, source, object_type=object_type, actions=actions)
    return tuple(sorted(found, key=lambda problem: (problem.line, problem.column)))


def _constant(
    tree: Node, source: str, *, object_type: ObjectType, actions: Collection[Action]
) -> list[ConditionProblem]:
    """That the condition has the same answer for every record."""
    if never_false(tree):
        message = "is true for every record; leave it out"
        return [_problem(source, tree.start, message, level=Level.WARNING)]
    never = never_true(tree, source)
    if never is not None:
        return [_problem(source, never.at, _spoken(never))]
    if actions:
        happening: dict[tuple[str, ...], list[str]] = {
            ("event", "action"): [action.value for action in actions],
            ("event", "object_type"): [object_type.value],
        }
        never = never_true(tree, source, outside=happening)
        if never is not None:
            wanted = shown(never.second or never.first)
            events = ", ".join(f"{object_type}.{action}" for action in actions)
            return [
                _problem(source, never.at, f"is never true: {wanted}, but this rule's events are {events}")
            ]
    return []


def _spoken(never: Never) -> str:
    if not never.first:
        return "is never true; to switch the rule off, say enabled: false"
    if not never.second:
        return f"is never true: nothing meets {shown(never.first)}"
    return f"is never true: {shown(never.first)} and {shown(never.second)} exclude each other"


def _problem(
    source: str, at: int, message: str, *, suggestion: str | None = None, level: Level = Level.ERROR
) -> ConditionProblem:
    line, column = cel_text.position(source, at)
    return ConditionProblem(line=line, column=column, message=message, suggestion=suggestion, level=level)
