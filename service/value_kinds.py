"""The kinds of values in conditions: what literals, Close's fields and CEL's functions give. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from service.cel_tree import Node
    from service.schema import CustomField

Kinds: TypeAlias = frozenset[str] | None
"""The kinds a value may have; None where anything is possible."""

TEXT, BLANK, NUMBER, TRUTH, LIST, MAP = "text", "blank", "number", "truth", "list", "map"
TIME, SPAN, BYTES, NOTHING = "time", "span", "bytes", "nothing"
A_TEXT = frozenset({TEXT, BLANK})
_SPOKEN = {
    TEXT: "text", BLANK: "text", NUMBER: "a number", TRUTH: "true or false", LIST: "a list", MAP: "a mapping",
    TIME: "a point in time", SPAN: "a length of time", BYTES: "bytes", NOTHING: "null",
}  # fmt: skip
RESULTS: dict[str, Kinds] = {
    "size": frozenset({NUMBER}), "int": frozenset({NUMBER}), "uint": frozenset({NUMBER}),
    "double": frozenset({NUMBER}), "string": A_TEXT, "timestamp": frozenset({TIME}),
    "duration": frozenset({SPAN}), "bytes": frozenset({BYTES}), "has": frozenset({TRUTH}),
    "matches": frozenset({TRUTH}),
}  # fmt: skip
TEXT_METHODS = frozenset({"contains", "startsWith", "endsWith", "matches"})
LOOP_RESULTS: dict[str, Kinds] = {
    "all": frozenset({TRUTH}), "exists": frozenset({TRUTH}), "exists_one": frozenset({TRUTH}),
    "existsOne": frozenset({TRUTH}), "filter": frozenset({LIST}), "map": frozenset({LIST}),
}  # fmt: skip
_FIELD_KINDS: dict[str, frozenset[str]] = {
    "text": A_TEXT, "textarea": A_TEXT, "choices": A_TEXT, "date": A_TEXT, "datetime": A_TEXT,
    "user": A_TEXT, "contact": A_TEXT, "number": frozenset({NUMBER, BLANK}),
}  # fmt: skip
"""What the values of Close's field types are; https://developer.close.com/api/resources/custom-fields."""

ORDERED = frozenset({TEXT, NUMBER, TIME, SPAN, TRUTH, BYTES})


def literal_kind(value: object) -> str:
    """The kind of a value that stands in an expression."""
    if value == "" and isinstance(value, str):
        return BLANK
    for kind, name in ((bool, TRUTH), (str, TEXT), ((int, float), NUMBER)):
        if isinstance(value, kind):
            return name
    return BYTES if isinstance(value, bytes) else NOTHING


def with_value(kinds: Kinds) -> Kinds:
    """The kinds without empty text, which stands for no value, and text where it is the only kind."""
    if kinds is None:
        return None
    return kinds - {BLANK} or frozenset({TEXT})


def spoken(kinds: frozenset[str]) -> str:
    """The kinds in words for people."""
    names = dict.fromkeys(_SPOKEN[kind] for kind in sorted(kinds - {BLANK} or kinds))
    return " or ".join(names)


def custom_field(path: tuple[str, ...]) -> str | None:
    """The custom field that a whole path reads, by name or id."""
    if len(path) == 3 and path[1] == "custom":  # noqa: PLR2004 - record, "custom" and the field
        return path[2]
    if len(path) == 2 and path[1].startswith("custom."):  # noqa: PLR2004 - record and the field
        return path[1].removeprefix("custom.")
    return None


def kinds_of_field(found: CustomField) -> Kinds:
    """The kinds that a custom field's values may have; a field without a value reads as empty text."""
    if found.accepts_multiple_values:
        return frozenset({LIST, BLANK})
    return _FIELD_KINDS.get(found.type)


def in_quotes(node: Node) -> str | None:
    """A number as text, where a number was written."""
    plain = isinstance(node.value, (int, float)) and not isinstance(node.value, bool)
    return f'"{node.value}"' if plain else None


def is_number_text(value: object) -> bool:
    """Whether a text is a number in quotes."""
    try:
        return isinstance(value, str) and not math.isnan(float(value))
    except ValueError:
        return False
