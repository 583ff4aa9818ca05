"""What the Activity page shows: the newest changes of all enrichments, a page at a time.

The history is one stream of at most 100,000 facts. A page is looked for among at most `MOST_LOOKED_AT` of
them, and the next one begins where this one has ended: by a fact's id, so nothing is shown twice or skipped
however much is written meanwhile. What one lead or contact has is found by its own index instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from redis.exceptions import ResponseError

from service import keys
from service.dashboard.reading import value_words
from service.redis_text import raw_hash, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from service.dashboard.desk import Desk
    from service.enrichment import Entry

AT_ONCE = 500
"""Facts read in one round trip."""

MOST_LOOKED_AT = 5000
"""Facts looked at for one page."""

MOST_OF_OBJECT = 500
"""Enrichments shown of one lead or contact, which has one for each field at most."""

CURSOR_PATTERN = r"^[1-9][0-9]{0,14}-[0-9]{1,15}$"
"""Of a fact's id. Nothing is before `0-0`, and Redis refuses to look there."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """The newest change of one enrichment on a page.

    Attributes:
        id: the enrichment.
        object_id: the lead or contact.
        field: the field's name.
        rule: the rule that planned it; "" where nobody remembers.
        state: where it went.
        at_ms: when, Unix milliseconds.
        reason: why, in words.
        older: how many older changes of it stand behind this one on the page.
        state_now: where it stands by now; "" where it is no longer remembered.
        value: what Close returned, for people, while it stands in `state`; "" for nothing.
    """

    id: str
    object_id: str
    field: str
    rule: str
    state: str
    at_ms: int
    reason: str
    older: int
    state_now: str
    value: str


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """A page of changes, newest first.

    Attributes:
        changes: one for each enrichment.
        next: where the next page begins; null where there is nothing older.
        looked_back_to_ms: the moment of the oldest fact that was looked at; null where none was.
        added: how many facts there have ever been; null where Redis does not say.
    """

    changes: list[Change]
    next: str | None
    looked_back_to_ms: int | None
    added: int | None


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the history, as the scripts write it; what a newer release may add is passed over."""

    id: str
    object: str
    state: str
    at: float
    field: str = ""
    rule: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which changes are wanted; what is None does not matter.

    Attributes:
        rule: of this rule.
        field: of the field with this name, whatever its case.
        state: that went to this state.
        object_type: of leads, or of contacts.
    """

    rule: str | None = None
    field: str | None = None
    state: str | None = None
    object_type: str | None = None

    def takes(self, *, rule: str, field: str, state: str, object_id: str) -> bool:
        """Whether something with these marks is wanted."""
        return (
            self.rule in {None, rule}
            and (self.field is None or self.field.casefold() == field.casefold())
            and self.state in {None, state}
            and (self.object_type is None or object_id.startswith(_PREFIXES.get(self.object_type, "\0")))
        )


_PREFIXES = {"lead": "lead_", "contact": "cont_"}


@dataclass(slots=True, kw_only=True)
class _Found:
    fact: Fact
    older: int = 0


async def read_activity(desk: Desk, wanted: Filter, *, most: int, before: str | None = None) -> Activity:
    """A page of the history.

    Args:
        desk: with Redis.
        wanted: which changes.
        most: at most so many enrichments.
        before: where the page before has ended; None for the newest.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    added = await read_added(desk.redis) if before is None else None
    found: dict[str, _Found] = {}
    cursor, looked_at = before, 0
    ended = False
    while looked_at < MOST_LOOKED_AT and not ended:
        newest = "+" if cursor is None else f"({cursor}"
        rows = await desk.redis.xrevrange(keys.HISTORY, max=newest, count=AT_ONCE) or []
        full = False
        for fact_id, fields in rows:
            fact = _decoded(fields)
            if fact is not None and _takes(wanted, fact):
                if fact.id in found:
                    found[fact.id].older += 1
                elif len(found) == most:
                    full = True
                    break
                else:
                    found[fact.id] = _Found(fact=fact)
            cursor = text(fact_id)
            looked_at += 1
        ended = len(rows) < AT_ONCE and not full
        if full:
            break
    return Activity(
        changes=await _changes(desk, list(found.values())),
        next=None if ended else cursor,
        looked_back_to_ms=None if cursor is None else int(cursor.partition("-")[0]),
        added=added,
    )


async def read_added(redis: Redis) -> int | None:
    """How many facts the history has ever had; None where Redis is too old to say, or there is no history.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    try:
        found: dict[str, Any] = await redis.xinfo_stream(keys.HISTORY)
    except ResponseError:  # there is no such stream yet
        return None
    added = found.get("entries-added")
    return None if added is None else int(added)


async def read_of_object(desk: Desk, wanted: Filter, object_id: str) -> Activity:
    """The enrichments of a lead or contact, the newest change first; or one enrichment, by its own id.

    Args:
        desk: with the ledger.
        wanted: which ones.
        object_id: the record's id, or an enrichment's.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    entries = await desk.ledger.entries_of(object_id)
    if not entries:
        one = await desk.ledger.entry(object_id)
        entries = [] if one is None else [one]
    rows = [
        entry
        for entry in sorted(entries, key=lambda entry: (-entry.changed_ms, entry.id))
        if wanted.takes(
            rule=entry.rule,
            field=entry.field_name or entry.field_id,
            state=entry.state,
            object_id=entry.object_id,
        )
    ]
    changes = [_change_of(entry) for entry in rows[:MOST_OF_OBJECT]]
    return Activity(changes=changes, next=None, looked_back_to_ms=None, added=None)


def _decoded(fields: Any) -> Fact | None:
    """A fact; None for what another release may have written."""
    try:
        return msgspec.json.decode(raw_hash(fields or {}).get(b"fact", b""), type=Fact)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _takes(wanted: Filter, fact: Fact) -> bool:
    return wanted.takes(rule=fact.rule, field=fact.field, state=fact.state, object_id=fact.object)


async def _changes(desk: Desk, found: Sequence[_Found]) -> list[Change]:
    entries = {one.id: one for one in await desk.ledger.entries([one.fact.id for one in found])}
    return [_change(one, entries.get(one.fact.id)) for one in found]


def _change(found: _Found, entry: Entry | None) -> Change:
    fact = found.fact
    holds = entry is not None and entry.state == fact.state and entry.value is not None
    return Change(
        id=fact.id,
        object_id=fact.object,
        field=fact.field,
        rule=fact.rule or (entry.rule if entry is not None else ""),
        state=fact.state,
        at_ms=round(fact.at),
        reason=fact.reason,
        older=found.older,
        state_now="" if entry is None else str(entry.state),
        value=value_words(entry.value) if holds and entry is not None else "",
    )


def _change_of(entry: Entry) -> Change:
    return Change(
        id=entry.id,
        object_id=entry.object_id,
        field=entry.field_name or entry.field_id,
        rule=entry.rule,
        state=str(entry.state),
        at_ms=entry.changed_ms,
        reason=entry.reason,
        older=0,
        state_now=str(entry.state),
        value="" if entry.value is None else value_words(entry.value),
    )
