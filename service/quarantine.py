"""Authentic deliveries that could not be read: kept for a person, capped in number and size."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from service import keys
from service.redis_text import raw_hash, text
from service.scripts import Script, script_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from redis.asyncio import Redis

MOST_KEPT = 1000
MOST_BODY_BYTES = 64 * 1024
PAGE = 100
"""Bodies read in one round trip: 6 MiB at most."""

_ID = re.compile(r"[0-9]{1,15}-[0-9]{1,15}", re.ASCII)


class Retried(StrEnum):
    """What became of a body that was to be planned once more (see unquarantine.lua)."""

    RETRIED = "retried"
    GONE = "gone"
    CUT = "cut"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """One delivery nobody could read.

    Attributes:
        id: of the quarantine entry: the time it came in (ms) and a number.
        reason: why it could not be read.
        size_bytes: of the whole body.
        body: its start, at most 64 KiB. It may hold personal data, so no repr shows it.
    """

    id: str
    reason: str
    size_bytes: int
    body: bytes = field(repr=False)

    @property
    def whole(self) -> bool:
        """Whether all of the body was kept; one that was cut cannot be planned."""
        return len(self.body) == self.size_bytes


async def quarantine(redis: Redis, *, body: bytes, reason: str) -> str:
    """Keep a body; the id under which it is found.

    Raises:
        redis.RedisError: it could not be kept.
    """
    entry_id = await redis.xadd(
        keys.QUARANTINE,
        {"reason": reason, "size": len(body), "body": body[:MOST_BODY_BYTES]},
        maxlen=MOST_KEPT,
        approximate=True,
    )
    return text(entry_id)


def is_quarantine_id(written: str) -> bool:
    """Whether a text can be the id of a quarantined body."""
    return _ID.fullmatch(written) is not None


async def list_quarantined(redis: Redis, *, most: int = 100, before: str | None = None) -> list[Quarantined]:
    """The newest kept bodies, newest first.

    Args:
        redis: where they are.
        most: at most so many.
        before: only those that came in before this one.

    Raises:
        ValueError: `before` is no id.
    """
    newest = "+" if before is None else f"({_bounds(before)[0]}"
    return [_quarantined(row) for row in await redis.xrevrange(keys.QUARANTINE, max=newest, count=most) or ()]


async def read_quarantined(redis: Redis, quarantine_id: str) -> Quarantined | None:
    """One kept body, or None.

    Raises:
        ValueError: the id is none.
    """
    rows = await redis.xrange(keys.QUARANTINE, *_bounds(quarantine_id))
    return _quarantined(rows[0]) if rows else None


async def quarantined_ids(redis: Redis) -> list[str]:
    """The ids of all kept bodies, oldest first."""
    return [one async for one in _ids(redis)]


async def retry_quarantined(redis: Redis, quarantine_id: str) -> Retried:
    """Have a body read and planned once more: it moves to the backlog, which `web` works off.

    One step: whoever else retries it at the same time finds it gone, and it is always in one of the two. One
    that still cannot be read comes back to quarantine under a new id.

    Raises:
        ValueError: the id is none.
    """
    retry = Script(redis, script_text("unquarantine"))
    answer = await retry(keys=[keys.QUARANTINE, keys.BACKLOG], args=[_bounds(quarantine_id)[0]])
    return Retried(text(answer))


async def drop_quarantined(redis: Redis, ids: Sequence[str]) -> int:
    """Delete bodies for good; how many this call has.

    Raises:
        ValueError: one of the ids is none.
    """
    if not ids:
        return 0
    return int(await redis.xdel(keys.QUARANTINE, *(_bounds(one)[0] for one in ids)))


async def _ids(redis: Redis) -> AsyncIterator[str]:
    start = "-"
    while rows := await redis.xrange(keys.QUARANTINE, min=start, count=PAGE):
        for entry_id, _ in rows:
            yield text(entry_id)
        start = f"({text(rows[-1][0])}"


def _bounds(quarantine_id: str) -> tuple[str, str]:
    if not is_quarantine_id(quarantine_id):
        raise ValueError("a quarantine id is two numbers, such as 1791970212000-0")
    return quarantine_id, quarantine_id


def _quarantined(row: tuple[Any, Any]) -> Quarantined:
    entry_id, fields = row
    raw = raw_hash(fields or {})
    return Quarantined(
        id=text(entry_id), reason=raw[b"reason"].decode(), size_bytes=int(raw[b"size"]), body=raw[b"body"]
    )
