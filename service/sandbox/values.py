"""What the sandbox's AI finds: a plausible value for each record and field, the same one every time. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.sandbox.fields import FieldSpec

_FIRST_DATE = date(1950, 1, 1)
_DATES = 27_000
_EMPLOYEES_MOST = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The AI's answer.

    Attributes:
        value: of the field's type; None where nothing was found.
        confidence: `high`, the only documented level; `low` where nothing was found.
        reasoning: one sentence.
    """

    value: object
    confidence: str
    reasoning: str


def find_value(field: FieldSpec, *, object_id: str, display_name: str, nothing_found_share: float) -> Finding:
    """Look a field's value up for a record.

    Args:
        field: an enrichable field.
        object_id: the record's id, which with the field's decides everything.
        display_name: the record's name, for texts.
        nothing_found_share: 0 to 1.
    """
    number = int.from_bytes(hashlib.blake2b(f"{object_id}\0{field.id}".encode(), digest_size=16).digest())
    luck, number = number % 2**32, number >> 32
    if luck < nothing_found_share * 2**32:
        return Finding(value=None, confidence="low", reasoning="No reliable source names this.")
    return Finding(
        value=_value(field, number, display_name),
        confidence="high",
        reasoning=f"The site of {display_name} says so.",
    )


def _value(field: FieldSpec, number: int, display_name: str) -> str | int | list[str]:
    if field.type == "number":
        return 1 + number % _EMPLOYEES_MOST
    if field.type == "date":
        return (_FIRST_DATE + timedelta(days=number % _DATES)).isoformat()
    if field.type == "choices" and field.choices:
        first = number % len(field.choices)
        if not field.accepts_multiple_values:
            return field.choices[first]
        how_many = 1 + number // len(field.choices) % min(3, len(field.choices))
        return [field.choices[(first + step) % len(field.choices)] for step in range(how_many)]
    return f"{display_name} could be talking to its customers sooner."
