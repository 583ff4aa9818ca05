"""A rule of which something does not fit, made whole so that the rest of it can be checked. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.problem import nearest
from service.rules import ObjectType

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

STAND_IN = "\N{NULL}"
"""What names begin with that stand in for a rule's missing name or field; no YAML holds it."""


def rule_stand_ins(index: int, item: object) -> dict[str, object]:
    """For a rule's required keys: values that no other rule has, and the object most likely meant."""
    unlike_any = f"{STAND_IN}{index}"
    stand_ins: dict[str, object] = {"name": unlike_any, "field": unlike_any}
    meant = nearest(str(item.get("object")), ObjectType) if isinstance(item, dict) else None
    return stand_ins if meant is None else {**stand_ins, "object": meant}


def leave_out(value: object, fault: ErrorDetails) -> None:
    """Remove what a fault is about, in place: the innermost key that can be done without."""
    steps = list(fault["loc"][:-1] if fault["type"] == "missing" else fault["loc"])
    while steps and not isinstance(steps[-1], str):
        steps.pop()
    for step in steps[:-1]:
        value = value.get(step) if isinstance(value, dict) else None
    if steps and isinstance(value, dict):
        value.pop(steps[-1], None)
