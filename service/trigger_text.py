"""The events of a rule's `on`, as people write them: `created`, `merged`, `updated(title, url)`. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.problem import nearest, shown
from service.rules import Action, Trigger

if TYPE_CHECKING:
    from collections.abc import Sequence

_TRIGGER = re.compile(r"\s*([^\s()]+)\s*(\((.*)\))?\s*", re.DOTALL)
_FIELD = re.compile(r"""(?:"[^"]*"|'[^']*'|[^,])+""")
_EXPECTED = "created, updated(<field>, ...) or merged"


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerFault:
    """Why an item is no trigger; `message` is a whole sentence."""

    message: str
    suggestion: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenTrigger:
    """What an item of `on` says, and the index of the item in the list as YAML reads it."""

    index: int
    meaning: Trigger | TriggerFault


def read_triggers(items: Sequence[str]) -> tuple[WrittenTrigger, ...]:
    """Read the items of `on`.

    In a YAML flow sequence the commas within `updated(title, url)` separate items; they are joined again.
    """
    read: list[WrittenTrigger] = []
    start, text = 0, ""
    for index, item in enumerate(items):
        start, text = (start, f"{text}, {item}") if text else (index, item)
        if text.count("(") <= text.count(")"):
            read.append(WrittenTrigger(index=start, meaning=_read_trigger(text)))
            text = ""
    if text:
        fault = TriggerFault(message=f"{shown(text)} has no closing parenthesis")
        read.append(WrittenTrigger(index=start, meaning=fault))
    return tuple(read)


def _read_trigger(text: str) -> Trigger | TriggerFault:
    match = _TRIGGER.fullmatch(text)
    if match is None:
        return TriggerFault(message=f"{shown(text)} is not one of {_EXPECTED}")
    word, parentheses, inner = match[1], match[2], match[3]
    if word not in list(Action):
        return TriggerFault(
            message=f"{shown(word)} is not one of {_EXPECTED}", suggestion=nearest(word, Action)
        )
    fields = tuple(_unquoted(field) for field in _FIELD.findall(inner or ""))
    if word == Action.UPDATED:
        if not fields or not all(fields):
            return TriggerFault(
                message="updated must name the fields whose change counts, as in updated(url)"
            )
    elif parentheses is not None:
        return TriggerFault(message=f"{word} takes no fields", suggestion=word)
    return Trigger(action=Action(word), fields=fields)


def _unquoted(field: str) -> str:
    field = field.strip()
    quoted = len(field) > 1 and field[0] in "'\"" and field[-1] == field[0]
    return field[1:-1].strip() if quoted else field
