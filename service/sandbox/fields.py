"""The sandbox's custom fields: what they are, how the API shows them, which values they take. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from service.sandbox.ids import named_id

ENRICHABLE_TYPES = frozenset({"text", "choices", "number", "date"})
"""The types Close names for enrichment; multi-choice is `choices` that takes several values."""

_DATE = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])")


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSpec:
    """A custom field.

    Attributes:
        id: `cf_…`, or `lcf_…` for one made before May 2021.
        name: as people see it.
        type: Close's word: `text`, `choices`, `number`, `date`, `user`, …
        objects: `lead`, `contact`, or both for a shared field.
        choices: the values a `choices` field takes.
        accepts_multiple_values: true for multi-choice.
        description: the help text.
        editable_with_roles: roles that may write it; empty means everyone.
    """

    id: str
    name: str
    type: str
    objects: tuple[str, ...] = ("lead",)
    choices: tuple[str, ...] | None = None
    accepts_multiple_values: bool = False
    description: str | None = None
    editable_with_roles: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The flat key of the field's value in a record: `custom.cf_…`."""
        return f"custom.{self.id}"

    @property
    def shared(self) -> bool:
        """Whether the field belongs to several object types."""
        return len(self.objects) > 1

    @property
    def enrichable(self) -> bool:
        """Whether enrichment can fill it."""
        return self.type in ENRICHABLE_TYPES


DEFAULT_FIELDS = (
    FieldSpec(
        id=named_id("cf", "Industry"),
        name="Industry",
        type="choices",
        choices=("Industrial Automation", "Logistics", "Software", "Food", "Crafts", "Health"),
        description="Primary industry",
    ),
    FieldSpec(
        id="cf_9hWfpU3HBGeya7iAhKQq2Zy15NdWAoVTECHuzfkkMjL",
        name="Employee count",
        type="number",
    ),
    FieldSpec(
        id=named_id("cf", "Segment"),
        name="Segment",
        type="choices",
        choices=("Small business", "Mid-market", "Enterprise"),
    ),
    FieldSpec(id=named_id("cf", "Pitch"), name="Pitch", type="text", description="Two lines to open with"),
    FieldSpec(id=named_id("cf", "Founded on"), name="Founded on", type="date"),
    FieldSpec(
        id=named_id("cf", "Markets"),
        name="Markets",
        type="choices",
        choices=("EU", "North America", "Asia", "OEM", "Partner"),
        accepts_multiple_values=True,
    ),
    FieldSpec(id=named_id("cf", "Account owner"), name="Account owner", type="user"),
    FieldSpec(id=named_id("lcf", "Source"), name="Source", type="text"),
    FieldSpec(
        id=named_id("cf", "Seniority"),
        name="Seniority",
        type="choices",
        objects=("contact",),
        choices=("Junior", "Senior", "Head", "Executive"),
    ),
    FieldSpec(
        id=named_id("cf", "Language"),
        name="Language",
        type="choices",
        objects=("lead", "contact"),
        choices=("English", "German", "French", "Norwegian"),
    ),
)
"""What the example rules need, and one of each kind: date, multi-choice, user, shared, old id."""


def is_empty(value: object) -> bool:
    """Whether a value counts as none: Close omits such a field from the record."""
    return value is None or value in ("", [])


def value_problem(field: FieldSpec, value: object) -> str | None:
    """Why a field cannot take a value, without repeating it, or None. Empty values unset any field."""
    if is_empty(value):
        return None
    if field.accepts_multiple_values and isinstance(value, list):
        return next((problem for item in value if (problem := _one_problem(field, item))), None)
    return _one_problem(field, value)


def _one_problem(field: FieldSpec, value: object) -> str | None:
    if field.type == "number":
        return (
            None if isinstance(value, int | float) and not isinstance(value, bool) else "Expected a number."
        )
    if not isinstance(value, str):
        return "Expected a string."
    if field.type == "date" and not _DATE.fullmatch(value):
        return "Expected a date like 2014-06-12."
    if field.type == "choices" and value not in (field.choices or ()):
        return "Not a valid choice."
    return None


def field_json(
    field: FieldSpec, *, organization_id: str, user_id: str, moment: str, shared_view: bool = False
) -> dict[str, Any]:
    """A field as the custom-field endpoints show it.

    Args:
        field: the field.
        organization_id: whose it is.
        user_id: who is said to have made it.
        moment: when, as a record time.
        shared_view: for `/custom_field/shared/`, whose entries name their associations.
    """
    shown: dict[str, Any] = {
        "accepts_multiple_values": field.accepts_multiple_values,
        "choices": None if field.choices is None else list(field.choices),
        "created_by": user_id,
        "date_created": moment,
        "date_updated": moment,
        "description": field.description,
        "editable_with_roles": list(field.editable_with_roles),
        "id": field.id,
        "name": field.name,
        "organization_id": organization_id,
        "type": field.type,
        "updated_by": user_id,
    }
    if shared_view:
        shown["associations"] = [
            {"object_type": name, "required": False, "editable_with_roles": list(field.editable_with_roles)}
            for name in field.objects
        ]
    return shown
