"""What a backfill asks Close's search for. Pure.

Source: https://developer.close.com/api/resources/advanced-filtering.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from service.record_names import ATTRIBUTES
from service.rules import Mode, ObjectType
from workers.backfill_walk import utc

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from service.binding import BoundRule
    from service.condition import Condition
    from service.schema import Schema
    from workers.backfill_walk import SearchWalk

PAGE_RECORDS = 200
"""The most records that Close is known to give on one page."""

_CREATED = "date_created"
_DEEPEST = 50


def search_body(
    walk: SearchWalk,
    *,
    object_type: ObjectType,
    conditions: Sequence[Mapping[str, Any]],
    fields: Sequence[str],
) -> dict[str, Any]:
    """The body of the `POST /data/search/` that a walk needs next.

    Args:
        walk: how far it has come.
        object_type: what is searched.
        conditions: what the records must meet besides; the same for the whole walk.
        fields: what to bring of each record.
    """
    created = {"type": "regular_field", "object_type": object_type.value, "field_name": _CREATED}
    window = {
        "type": "field_condition",
        "field": created,
        "condition": {
            "type": "moment_range",
            "on_or_after": {"type": "fixed_utc", "value": utc(walk.since)},
            "before": {"type": "fixed_utc", "value": utc(walk.until)},
        },
    }
    this_type = {"type": "object_type", "object_type": object_type.value}
    return {
        "query": {"type": "and", "queries": [this_type, window, *conditions]},
        "_fields": {object_type.value: list(fields)},
        "sort": [{"direction": "asc", "field": created}],
        "_limit": PAGE_RECORDS,
        "include_counts": True,
        "cursor": walk.cursor,
    }


def lacking(rules: Iterable[BoundRule]) -> list[dict[str, Any]]:
    """The condition that a record lacks one of the rules' fields; none where a rule wants filled ones too."""
    rules = tuple(rules)
    if any(one.rule.mode is not Mode.FILL for one in rules):
        return []
    empty = [
        {
            "type": "field_condition",
            "negate": True,
            "field": {"type": "custom_field", "custom_field_id": field_id},
            "condition": {"type": "exists"},
        }
        for field_id in dict.fromkeys(one.field_id for one in rules)
    ]
    return empty if len(empty) == 1 else [{"type": "or", "queries": empty}]


def fields_needed(
    object_type: ObjectType, rules: Iterable[BoundRule], conditions: Iterable[Condition], *, schema: Schema
) -> tuple[str, ...]:
    """What must be known of a record to judge it: attributes and `custom.<id>`s.

    Args:
        object_type: lead or contact.
        rules: whose fields they are.
        conditions: what is judged on the record.
        schema: the object's custom fields.
    """
    names = {"id", "lead_id", _CREATED} if object_type is ObjectType.CONTACT else {"id", _CREATED}
    names |= {f"custom.{one.field_id}" for one in rules}
    everything = {f"custom.{known.id}" for known in schema.fields}
    for condition in conditions:
        if condition.reads_whole_record:
            return tuple(sorted(names | everything | ATTRIBUTES[object_type]))
        names |= set(condition.attributes)
        named = set(condition.custom_fields)
        names |= {f"custom.{known.id}" for known in schema.fields if named & {known.id, known.name}}
    return tuple(sorted(names))


def read_query(text: bytes) -> dict[str, Any] | str:
    """The query in what Close's "Copy Filters" gives, or a bare one; or what is wrong with it.

    Args:
        text: the file's contents.
    """
    try:
        decoded = msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        return f"not JSON: {reason}"
    query = decoded.get("query", decoded) if isinstance(decoded, dict) else None
    if not isinstance(query, dict) or not isinstance(query.get("type"), str):
        return 'expected what "Copy Filters" in Close gives: an object with a "query" that has a "type"'
    return query


def for_object(query: Mapping[str, Any], object_type: ObjectType) -> Mapping[str, Any]:
    """A query that records of a type can meet: one about the other type is met by its records' relatives.

    Args:
        query: as it was copied.
        object_type: whose records are searched.
    """
    about = _object_type(query)
    if about is None or about == object_type.value:
        return query
    return {
        "type": "has_related",
        "this_object_type": object_type.value,
        "related_object_type": about,
        "related_query": query,
    }


def _object_type(query: object, depth: int = 0) -> str | None:
    """What a query is about: the first type that it names, not counting those of relatives."""
    if not isinstance(query, dict) or depth > _DEEPEST:
        return None
    if query.get("type") == "object_type":
        return str(query.get("object_type"))
    if query.get("type") == "has_related":
        named = query.get("this_object_type")
        return named if isinstance(named, str) else None
    inner = query.get("queries")
    found = (_object_type(one, depth + 1) for one in (inner if isinstance(inner, list) else ()))
    return next((one for one in found if one is not None), None)
