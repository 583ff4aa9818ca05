"""The custom fields of an organization, as Close's schema endpoint lists them. Pure.

Source: `GET /custom_field_schema/{lead|contact}/` returns regular and shared fields in UI order
(https://developer.close.com/api/resources/custom-field-schemas).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from service.problem import nearest_names
from service.rules import ObjectType  # noqa: TC001 - msgspec resolves Schema's annotations at run time

if TYPE_CHECKING:
    from collections.abc import Callable

ENRICHABLE_TYPES = frozenset({"text", "choices", "number", "date"})
"""The field types that Close's enrichment names; `choices` also with several values.

Source: https://developer.close.com/api/resources/field-enrichment.
"""


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
class UnknownField:
    """No custom field has that name or id; `nearest` holds up to three names that come close."""

    name: str
    nearest: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AmbiguousField:
    """Several custom fields have that name; only their ids tell them apart."""

    name: str
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """All custom fields of one object type in one organization."""

    object_type: ObjectType
    organization_id: str
    fields: tuple[CustomField, ...]

    def lookup(self, name_or_id: str) -> CustomField | UnknownField | AmbiguousField:
        """The field meant by an id, or by a name: exactly, or else whatever its case and spaces."""
        wanted = folded(name_or_id)
        matchers: tuple[Callable[[CustomField], bool], ...] = (
            lambda field: field.id == name_or_id,
            lambda field: field.name == name_or_id,
            lambda field: folded(field.name) == wanted,
        )
        for matches in matchers:
            found = tuple(field for field in self.fields if matches(field))
            if len(found) == 1:
                return found[0]
            if found:
                return AmbiguousField(name=name_or_id, ids=tuple(field.id for field in found))
        return UnknownField(name=name_or_id, nearest=nearest_names(name_or_id, (f.name for f in self.fields)))

    def to_json(self) -> bytes:
        """The schema for a cache; `from_json` reads it again."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, payload: bytes) -> Schema | None:
        """What `to_json` wrote, or None for anything else: a cache of another version is no cache."""
        try:
            return msgspec.json.decode(payload, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None


def folded(name: str) -> str:
    """A name without its case and its runs of spaces, for comparing."""
    return " ".join(name.casefold().split())


def parse_schema(payload: bytes | dict[str, Any], *, object_type: ObjectType) -> Schema | str:
    """Read an answer of the schema endpoint, or say what is wrong with it.

    Entries without an id or a name are left out, keys we do not know are ignored, and those we know may be
    missing, null or of another kind: only what can be relied on is taken over.

    Args:
        payload: the answer's body, or the same decoded.
        object_type: the object whose schema was asked for.
    """
    if isinstance(payload, bytes):
        try:
            decoded = msgspec.json.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return "the custom field schema is not JSON"
    else:
        decoded = payload
    if not isinstance(decoded, dict) or not isinstance(decoded.get("fields"), list):
        return "the custom field schema has no list of fields"
    told = decoded.get("object_type", object_type)
    if told != object_type:
        return f"the custom field schema is not the one for {object_type}s"
    fields = tuple(field for entry in decoded["fields"] if (field := _field(entry)) is not None)
    organization_id = decoded.get("organization_id")
    return Schema(object_type=object_type, organization_id=_text(organization_id) or "", fields=fields)


def _field(entry: object) -> CustomField | None:
    if not isinstance(entry, dict):
        return None
    field_id, name = _text(entry.get("id")), _text(entry.get("name"))
    if not field_id or not name:
        return None
    choices = entry.get("choices")
    return CustomField(
        id=field_id,
        name=name,
        type=_text(entry.get("type")) or "unknown",
        accepts_multiple_values=entry.get("accepts_multiple_values") is True,
        choices=_texts(choices) if isinstance(choices, list) else None,
        description=_text(entry.get("description")),
        editable_with_roles=_texts(entry.get("editable_with_roles")),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
