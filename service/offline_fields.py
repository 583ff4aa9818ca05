"""Custom fields where Close cannot be asked: what rules name by id works, names stay unknown. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from service.record_names import ATTRIBUTES
from service.rules import ObjectType
from service.schema import CustomField, Schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from service.event import Event
    from service.rules import Rule, RuleBook

_CUSTOM = "custom."
_LIKE_AN_ID = re.compile(r"l?cf_[A-Za-z0-9]+")
"""How the ids of Close's custom fields look; what the event names is one whatever it looks like."""


def offline_schemas(rulebook: RuleBook, event: Event) -> tuple[Mapping[ObjectType, Schema], frozenset[str]]:
    """Schemas that let every rule be looked at, and the ids among the custom fields that the rules name.

    A field that a rule names by its name is taken for one that exists and holds nothing; what depends on it
    cannot be told, and whoever asks has to say so.

    Args:
        rulebook: the rules.
        event: the event, which names its organization and the ids of fields with values.
    """
    keys = [*event.data(), *event.changed_fields]
    in_event = {key.removeprefix(_CUSTOM) for key in keys if key.startswith(_CUSTOM)}
    schemas, ids = {}, set()
    for object_type in ObjectType:
        names = dict.fromkeys(
            name for rule in rulebook.rules if rule.object_type is object_type for name in _named(rule)
        )
        ids |= {name for name in names if name in in_event or _LIKE_AN_ID.fullmatch(name)}
        schemas[object_type] = Schema(
            object_type=object_type,
            organization_id=event.organization_id,
            fields=tuple(CustomField(id=name, name=name, type="text") for name in names),
        )
    return schemas, frozenset(ids)


def named_fields(rule: Rule) -> frozenset[str]:
    """The custom fields that a rule listens to for changes, without a `custom.` before them."""
    attributes = ATTRIBUTES[rule.object_type]
    names = (name for trigger in rule.on for name in trigger.fields if name not in attributes)
    return frozenset(name.removeprefix(_CUSTOM) for name in names)


def _named(rule: Rule) -> Iterator[str]:
    yield rule.field.removeprefix(_CUSTOM)
    yield from named_fields(rule)
    if rule.when is not None:
        yield from rule.when.custom_fields
