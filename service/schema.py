"""The custom fields of an organization, as Close's schema endpoint lists them. Pure.

Source: `GET /custom_field_schema/{lead|contact}/` returns regular and shared fields in UI order
(https://developer.close.com/api/resources/custom-field-schemas).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.rules import ObjectType


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomField:
    """One custom field of a lead or contact.

    Attributes:
        id: `cf_…`, or `lcf_…` for fields made before May 2021; never assume the prefix.
        name: as people see it in Close; names need not be unique.
        type: `text`, `choices`, `number`, `date`, …; unknown ones are kept as they are.
        accepts_multiple_values: true for multi-choice fields.
        choices: the values a `choices` field takes, where Close names them.
        description: the field's help text, or None.
        editable_with_roles: roles that may write the field; empty means everyone.
    """

    id: str
    name: str
    type: str
    accepts_multiple_values: bool = False
    choices: tuple[str, ...] | None = None
    description: str | None = None
    editable_with_roles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """All custom fields of one object type in one organization."""

    object_type: ObjectType
    organization_id: str
    fields: tuple[CustomField, ...]
