"""The newest changes of any enrichment, as a table, for live views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from rich.table import Table
from rich.text import Text

from service import keys
from service.cli.report import STATE_STYLES
from service.enrichment import State
from service.overview import moment
from service.problem import printable
from service.redis_text import raw_hash

if TYPE_CHECKING:
    from service.ledger import Ledger

_SHOWN_ID = 14


async def read_newest(ledger: Ledger, *, most: int) -> list[dict[str, Any]]:
    """The newest facts, newest first, each with the value that its enrichment holds now.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    rows = await ledger.redis.xrevrange(keys.HISTORY, count=most)
    facts: list[dict[str, Any]] = [
        msgspec.json.decode(raw_hash(fields or {})[b"fact"]) for _, fields in rows or ()
    ]
    ended = sorted({fact["id"] for fact in facts if State(fact["state"]).final})
    entries = {entry.id: entry for entry in await ledger.entries(ended)} if ended else {}
    for fact in facts:
        entry = entries.get(fact["id"]) if State(fact["state"]).final else None
        fact["value"] = None if entry is None else entry.value
    return facts


def newest_table(facts: list[dict[str, Any]]) -> Table:
    """The newest facts for people."""
    table = Table(title="Newest", title_justify="left", box=None)
    for name in ("at (UTC)", "record", "field", "state", "what came of it"):
        table.add_column(name, no_wrap=True)
    for fact in facts:
        state = State(fact["state"])
        words = fact.get("reason", "") if fact["value"] is None else str(fact["value"])
        table.add_row(
            moment(fact["at"])[11:],
            fact["object"][: _SHOWN_ID - 1] + "…",
            Text(fact.get("field", "")),
            Text(state.value, style=STATE_STYLES.get(state, "")),
            Text(printable(words)),
        )
    return table
