"""Authentic deliveries that could not be read: kept for a person, capped in number and size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from service import keys
from service.redis_text import raw_hash, text

if TYPE_CHECKING:
    from redis.asyncio import Redis

MOST_KEPT = 1000
MOST_BODY_BYTES = 64 * 1024


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


async def list_quarantined(redis: Redis, *, most: int = 100) -> list[Quarantined]:
    """The newest kept bodies, newest first."""
    rows = await redis.xrevrange(keys.QUARANTINE, count=most)
    found = []
    for entry_id, fields in rows or ():
        raw = raw_hash(fields or {})
        found.append(
            Quarantined(
                id=text(entry_id),
                reason=raw[b"reason"].decode(),
                size_bytes=int(raw[b"size"]),
                body=raw[b"body"],
            )
        )
    return found
