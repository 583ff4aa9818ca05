"""`POST /data/search/` as far as a backfill needs it: by type, field, relatives, and time of creation.

Source: https://developer.close.com/api/resources/advanced-filtering. A cursor lives 30 seconds; a search ends
with a 400 at 10,000 objects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.sandbox.ids import new_id, parsed_time
from service.sandbox.wire import Reply, answer, invalid, json_object

if TYPE_CHECKING:
    from service.sandbox.wire import Request
    from service.sandbox.world import Record, World

CURSOR_SECONDS = 30.0
PAGE_MOST = 200
"""A higher `_limit` is taken for this; Close's maximum is not documented."""

_KNOWN = frozenset(
    {"query", "_fields", "sort", "_limit", "results_limit", "include_counts", "cursor"},
)
_LISTS_OF_VALUES = {"term": "values", "reference": "object_ids"}
_DEAD_CURSOR = {"cursor": "This cursor is not valid or has expired."}

Test = Callable[[str, "Record"], bool]


class _Unsupported(ValueError):  # noqa: N818  # a refusal that is answered, not an error
    """A query the sandbox cannot judge; its text says which part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchCursor:
    """A search that goes on.

    Attributes:
        object_type: what is searched.
        ids: all that matched when the search began.
        position: how many were given out.
        expires_at: Unix seconds.
    """

    object_type: str
    ids: tuple[str, ...]
    position: int
    expires_at: float


def search(world: World, request: Request) -> Reply:
    """`POST /data/search/`."""
    body = json_object(request.body)
    if isinstance(body, Reply):
        return body
    problem = _body_problem(body)
    if problem is not None:
        return problem
    now = world.clock()
    for token in [token for token, cursor in world.cursors.items() if cursor.expires_at <= now]:
        del world.cursors[token]
    if body.get("cursor") is not None:
        cursor = world.cursors.get(body["cursor"])
        if cursor is None or cursor.position >= world.options.search_cap:
            return invalid(_DEAD_CURSOR)
    else:
        try:
            cursor = _begin(world, body, now)
        except _Unsupported as refusal:
            return invalid({"query": str(refusal)})
    return _page(world, body, cursor, now)


def _begin(world: World, body: dict[str, Any], now: float) -> SearchCursor:
    object_type = _object_type(body["query"]) or "lead"
    test = _test(world, body["query"])
    records = world.leads if object_type == "lead" else world.contacts
    found = [record for record in records.values() if test(object_type, record)]
    sort = body.get("sort") or []
    if sort:
        found.sort(key=lambda record: str(record["date_created"]), reverse=_descending(sort))
    return SearchCursor(
        object_type=object_type,
        ids=tuple(record["id"] for record in found),
        position=0,
        expires_at=now + CURSOR_SECONDS,
    )


def _page(world: World, body: dict[str, Any], cursor: SearchCursor, now: float) -> Reply:
    total = len(cursor.ids)
    limited = min(total, body.get("results_limit", total))
    end = min(
        limited, cursor.position + min(body.get("_limit", PAGE_MOST), PAGE_MOST), world.options.search_cap
    )
    wanted = (body.get("_fields") or {}).get(cursor.object_type, ["id"])
    records = world.leads if cursor.object_type == "lead" else world.contacts
    data = []
    for object_id in cursor.ids[cursor.position : end]:
        record = records.get(object_id)
        if record is not None:
            shown = {name: record[name] for name in wanted if name in record}
            data.append({"__object_type": cursor.object_type, "id": object_id, **shown})
    token = None
    if end < limited:
        token = new_id("cursor", world.random)
        world.cursors[token] = SearchCursor(
            object_type=cursor.object_type, ids=cursor.ids, position=end, expires_at=now + CURSOR_SECONDS
        )
    reply: dict[str, Any] = {"data": data, "cursor": token}
    if body.get("include_counts"):
        reply["count"] = {"limited": limited, "total": total}
    return answer(reply)


def _body_problem(body: dict[str, Any]) -> Reply | None:
    problems = {name: "Unknown field." for name in body if name not in _KNOWN}
    if "query" not in body:
        problems["query"] = "This field is required."
    for name, least in (("_limit", 1), ("results_limit", 0)):
        value = body.get(name, least)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            problems[name] = f"Expected a whole number of at least {least}."
    fields = body.get("_fields")
    if fields is not None and not (
        isinstance(fields, dict) and all(isinstance(names, list) for names in fields.values())
    ):
        problems["_fields"] = "Expected a list of fields for each object type."
    if not isinstance(body.get("cursor"), str | None):
        problems["cursor"] = "Expected a string."
    return invalid(problems) if problems else None


def _object_type(query: object) -> str | None:
    if not isinstance(query, dict):
        return None
    if query.get("type") == "object_type":
        return str(query.get("object_type"))
    inner = query.get("queries")
    found = (_object_type(entry) for entry in (inner if isinstance(inner, list) else []))
    return next((entry for entry in found if entry is not None), None)


def _test(world: World, query: object) -> Test:
    if not isinstance(query, dict):
        raise _Unsupported("Expected an object.")
    test = _plain_test(world, query)
    if query.get("negate") is True:
        return lambda object_type, record: not test(object_type, record)
    return test


def _plain_test(world: World, query: dict[str, Any]) -> Test:
    kind = query.get("type")
    if kind in ("and", "or"):
        queries = query.get("queries")
        if not isinstance(queries, list):
            raise _Unsupported(f"{kind}: expected a list of queries.")
        tests = [_test(world, entry) for entry in queries]
        join = all if kind == "and" else any
        return lambda object_type, record: join(test(object_type, record) for test in tests)
    if kind == "match_all":
        return lambda _object_type, _record: True
    if kind == "object_type":
        wanted = query.get("object_type")
        if wanted not in ("lead", "contact"):
            raise _Unsupported("object_type: expected lead or contact.")
        return lambda object_type, _record: object_type == wanted
    if kind == "field_condition":
        return _field_test(world, query.get("field"), query.get("condition"))
    if kind == "has_related":
        return _related_test(world, query)
    raise _Unsupported(f"Query type {kind!r} is not supported.")


def _related_test(world: World, query: dict[str, Any]) -> Test:
    """Leads by what their contacts meet, or contacts by what their lead meets."""
    this, related = query.get("this_object_type"), query.get("related_object_type")
    if (this, related) not in (("lead", "contact"), ("contact", "lead")):
        raise _Unsupported("has_related: expected lead and contact as this_ and related_object_type.")
    test = _test(world, query.get("related_query"))

    def met(object_type: str, record: Record) -> bool:
        if object_type != this:
            return False
        if related == "lead":
            relatives = [world.leads.get(record["lead_id"])]
        else:
            relatives = [world.contacts.get(one) for one in record["contact_ids"]]
        return any(one is not None and test(str(related), one) for one in relatives)

    return met


def _field_test(world: World, field: object, condition: object) -> Test:
    if not isinstance(field, dict) or not isinstance(condition, dict):
        raise _Unsupported("field_condition: expected a field and a condition.")
    if field.get("type") == "custom_field":
        name = f"custom.{field.get('custom_field_id')}"
        if field.get("custom_field_id") not in world.fields:
            raise _Unsupported("custom_field_id: this custom field does not exist.")
    else:
        name = str(field.get("field_name"))
    kind = condition.get("type")
    if kind == "exists":
        return lambda _object_type, record: record.get(name) not in (None, "", [])
    if kind in _LISTS_OF_VALUES:
        return _among(name, condition.get(_LISTS_OF_VALUES[kind]))
    if kind == "moment_range" and name in ("date_created", "date_updated"):
        first, end = _moment(condition.get("on_or_after")), _moment(condition.get("before"))

        def within(_object_type: str, record: Record) -> bool:
            at = parsed_time(record[name])
            return at is not None and (first is None or at >= first) and (end is None or at < end)

        return within
    raise _Unsupported(f"Condition type {kind!r} is not supported for this field.")


def _among(name: str, wanted: object) -> Test:
    """A field holds one of some values: a `term`'s, or the ids of a `reference`."""
    if not isinstance(wanted, list):
        raise _Unsupported("field_condition: expected a list of values.")

    def met(_object_type: str, record: Record) -> bool:
        held = record.get(name)
        return any(one in wanted for one in (held if isinstance(held, list) else [held]))

    return met


def _moment(bound: object) -> float | None:
    if bound is None:
        return None
    value = bound.get("value") if isinstance(bound, dict) and bound.get("type") == "fixed_utc" else None
    moment = parsed_time(value) if isinstance(value, str) else None
    if moment is None:
        raise _Unsupported("moment_range: expected fixed_utc with a date and time.")
    return moment


def _descending(sort: object) -> bool:
    first = sort[0] if isinstance(sort, list) and isinstance(sort[0], dict) else {}
    field = first.get("field")
    if not isinstance(field, dict) or field.get("field_name") != "date_created":
        raise _Unsupported("sort: only by date_created.")
    return first.get("direction") == "desc"
