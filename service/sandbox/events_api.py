"""The event log over HTTP: `GET /event/` and `GET /event/{id}/`.

Source: https://developer.close.com/api/resources/events/list. Newest first by `date_updated`, 50 a page, only
the documented combinations of filters; `date_created__…` is ignored without a word, as live probes found.
"""

from __future__ import annotations

import base64
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from service.sandbox.ids import naive_time, parsed_time
from service.sandbox.wire import Reply, answer, invalid, missing

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.sandbox.journal import Entry
    from service.sandbox.wire import Request
    from service.sandbox.world import World

PAGE_MOST = 50
"""Page size, the most and the default. A higher `_limit` is taken for this; what Close does is not known."""

_FILTERS = ("object_type", "object_id", "action", "lead_id", "user_id", "request_id")
_ALLOWED = frozenset(
    frozenset(names.split())
    for names in (
        "",
        "object_type object_id",
        "object_type action",
        "object_id action",
        "lead_id object_type",
        "lead_id object_type action",
        "lead_id object_type user_id",
        "lead_id object_type action user_id",
        "lead_id user_id",
        "user_id object_id",
        "user_id object_id action",
        "user_id object_type",
        "user_id object_type action",
        "lead_id",
        "user_id",
        "request_id",
    )
)
_COMPARISONS: dict[str, Callable[[str, str], bool]] = {
    "date_updated__gt": operator.gt,
    "date_updated__gte": operator.ge,
    "date_updated__lt": operator.lt,
    "date_updated__lte": operator.le,
}


class _Cursor(msgspec.Struct, array_like=True):
    """Where a walk stands: a sequence number, the direction, and the bounds that need not be repeated."""

    sequence: int
    older: bool
    bounds: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Query:
    wanted: tuple[tuple[str, str], ...]
    bounds: dict[str, str]
    limit: int
    cursor: _Cursor | None

    def accepts(self, entry: Entry) -> bool:
        """Whether an entry passes all filters, wherever the cursor stands."""
        event = entry.event
        if any(event[name] != value for name, value in self.wanted):
            return False
        return all(_COMPARISONS[name](event["date_updated"], bound) for name, bound in self.bounds.items())

    def is_newer(self, entry: Entry) -> bool:
        """Whether an entry is on the newer side; the cursor's own is on the side that is left behind."""
        if self.cursor is None:
            return False
        return entry.sequence >= self.cursor.sequence + (0 if self.cursor.older else 1)


def get_event(world: World, request: Request) -> Reply:
    """`GET /event/{id}/`."""
    event = world.journal.get(request.object_id)
    return missing() if event is None else answer(event)


def list_events(world: World, request: Request) -> Reply:
    """`GET /event/`: a page of the log. `cursor_next` leads to older events."""
    query = _read(request.query)
    if isinstance(query, Reply):
        return query
    to_older = query.cursor is None or query.cursor.older
    newer: list[Entry] = []
    older: list[Entry] = []
    for entry in world.journal.newest_first():
        if not query.accepts(entry):
            continue
        (newer if query.is_newer(entry) else older).append(entry)
        if len(older) > (query.limit if to_older else 0):
            break
    # The newer entries nearest to the cursor are the last ones.
    page = older[: query.limit] if to_older else newer[-query.limit :]
    has_older = len(older) > query.limit if to_older else bool(older)
    has_newer = bool(newer) if to_older else len(newer) > query.limit
    return answer(
        {
            "cursor_next": _token(page[-1], older=True, query=query) if page and has_older else None,
            "cursor_previous": _token(page[0], older=False, query=query) if page and has_newer else None,
            "data": [entry.event for entry in page],
        }
    )


def _read(params: dict[str, str]) -> _Query | Reply:
    wanted = tuple((name, params[name]) for name in _FILTERS if name in params)
    if frozenset(name for name, _ in wanted) not in _ALLOWED:
        names = ", ".join(name for name, _ in wanted)
        return invalid(None, f"This combination of filters is not allowed: {names}.")
    bounds = {}
    for name in _COMPARISONS:
        if name in params:
            moment = parsed_time(params[name])
            if moment is None:
                return invalid({name: "Expected a date and time."})
            bounds[name] = naive_time(moment)
    limit = params.get("_limit", str(PAGE_MOST))
    if not limit.isdecimal() or int(limit) < 1:
        return invalid({"_limit": "Expected a positive whole number."})
    cursor = None
    if "_cursor" in params:
        cursor = _parsed_cursor(params["_cursor"])
        if cursor is None:
            return invalid({"_cursor": "This cursor is not valid."})
        bounds = {**cursor.bounds, **bounds}
    return _Query(wanted=wanted, bounds=bounds, limit=min(int(limit), PAGE_MOST), cursor=cursor)


def _token(entry: Entry, *, older: bool, query: _Query) -> str:
    cursor = _Cursor(entry.sequence, older, query.bounds)
    return base64.urlsafe_b64encode(msgspec.json.encode(cursor)).decode().rstrip("=")


def _parsed_cursor(token: str) -> _Cursor | None:
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        cursor = msgspec.json.decode(raw, type=_Cursor)
    except (ValueError, msgspec.DecodeError):
        return None
    return cursor if cursor.bounds.keys() <= _COMPARISONS.keys() else None
