"""The enrichment history as rows, for a warehouse or a spreadsheet."""

from __future__ import annotations

import csv
import datetime as dt
import io
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from service import keys
from service.redis_text import texts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from service.enrichment import Entry, State
    from service.ledger import Ledger

AT_ONCE = 500

COLUMNS = (
    *(
        "enrichment",
        "organization_id",
        "object_type",
        "object_id",
        "lead_id",
        "rule",
        "field_id",
        "field_name",
    ),
    *(
        "mode",
        "state",
        "reason",
        "value",
        "confidence",
        "reasoning",
        "attempts",
        "credits",
        "event_id",
        "action",
    ),
    *("planned_at", "called_at", "changed_at", "ended_at"),
)
"""What a row has, in this order. Columns are only ever added, at the end."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class ExportFormat(StrEnum):
    """How rows are written."""

    CSV = "csv"
    JSONL = "jsonl"


async def exported(
    ledger: Ledger, *, since_ms: int = 0, states: frozenset[State] | None = None
) -> AsyncIterator[dict[str, Any]]:
    """Every enrichment of the ledger that has changed since, as rows, each once and in no order.

    The ledger is walked in small steps while it goes on changing: what is planned meanwhile may be missing.

    Args:
        ledger: where they are, for 35 days after their end.
        since_ms: leave out what has not changed since (Unix milliseconds).
        states: only these; None for all.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    seen: set[str] = set()
    prefix = keys.entry("")
    batch: list[str] = []
    async for key in ledger.redis.scan_iter(match=f"{prefix}*", count=AT_ONCE):
        batch += [one.removeprefix(prefix) for one in texts([key])]
        if len(batch) >= AT_ONCE:
            for entry in await _fresh(ledger, batch, seen):
                if _wanted(entry, since_ms=since_ms, states=states):
                    yield row_of(entry)
            batch = []
    for entry in await _fresh(ledger, batch, seen):
        if _wanted(entry, since_ms=since_ms, states=states):
            yield row_of(entry)


async def _fresh(ledger: Ledger, ids: Iterable[str], seen: set[str]) -> list[Entry]:
    # a scan may come by a key twice while Redis resizes its table
    new = [one for one in dict.fromkeys(ids) if one not in seen]
    seen.update(new)
    return await ledger.entries(new) if new else []


def _wanted(entry: Entry, *, since_ms: int, states: frozenset[State] | None) -> bool:
    return entry.changed_ms >= since_ms and (states is None or entry.state in states)


def row_of(entry: Entry) -> dict[str, Any]:
    """One enrichment as a row: text, numbers, None, and for `value` any JSON."""
    return {
        "enrichment": entry.id,
        "organization_id": entry.organization_id,
        "object_type": entry.object_type,
        "object_id": entry.object_id,
        "lead_id": entry.lead_id,
        "rule": entry.rule,
        "field_id": entry.field_id,
        "field_name": entry.field_name,
        "mode": entry.mode,
        "state": entry.state.value,
        "reason": entry.reason,
        "value": entry.value,
        "confidence": entry.confidence,
        "reasoning": entry.reasoning,
        "attempts": entry.attempts,
        "credits": entry.calls,
        "event_id": entry.event_id,
        "action": entry.action,
        "planned_at": _moment(entry.planned_ms),
        "called_at": _moment(entry.called_ms),
        "changed_at": _moment(entry.changed_ms),
        "ended_at": _moment(entry.ended_ms),
    }


def _moment(at_ms: int | None) -> str | None:
    return (
        None if not at_ms else dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC).isoformat("T", "milliseconds")
    )


def jsonl_line(row: Mapping[str, Any]) -> str:
    """A row as one line of JSON, values as Close has them."""
    return msgspec.json.encode(row).decode() + "\n"


def csv_header() -> str:
    """The first line of a CSV file."""
    return _csv(COLUMNS)


def csv_line(row: Mapping[str, Any]) -> str:
    """A row as CSV (RFC 4180). Lists are written as JSON.

    Text that a spreadsheet would take for a formula gets an apostrophe before it: values come from the web
    (https://owasp.org/www-community/attacks/CSV_Injection).
    """
    return _csv(_cell(row[name]) for name in COLUMNS)


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return value
    return msgspec.json.encode(value).decode()


def _csv(cells: Iterable[Any]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()
