"""What the burst guard holds for a person, and letting it go.

A held entry is planned like any other, but no job delivers it (see accept.lua). Nothing here reads all that
is held at once: it may be the whole of an import.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from service import keys
from service.transitions import Postponement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from service.enrichment import Entry
    from service.ledger import Ledger

PAGE = 500
"""Entries looked at in one round trip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What is held of one rule.

    Attributes:
        rule: its name.
        count: enrichments held.
        oldest_ms: when the first of them was planned, Unix milliseconds.
    """

    rule: str
    count: int
    oldest_ms: int

    @property
    def credits_at_most(self) -> int:
        """What letting them go costs at most: one call each, fewer where a field is filled by then."""
        return self.count


async def count_held(redis: Redis) -> int:
    """How many enrichments the burst guard holds; also the credits that they cost at most."""
    return int(await redis.zcard(keys.HELD))


async def held(redis: Redis, *, most: int | None = None) -> list[Held]:
    """What is held, rule by rule, the longest held first.

    Args:
        redis: where it is.
        most: of all that is held, the oldest so many or a page more; None for all.
    """
    found: dict[str, Held] = {}
    seen = 0
    async for page in _pages(redis, until_ms=await _now_ms(redis)):
        async with redis.pipeline(transaction=False) as pipeline:
            for of_entry in page:
                pipeline.hmget(keys.entry(of_entry), "rule")
            rows = await pipeline.execute()
        for planned_ms, (rule,) in zip(page.values(), rows, strict=True):
            if rule is not None:
                name = rule.decode()
                so_far = found.get(name) or Held(rule=name, count=0, oldest_ms=planned_ms)
                found[name] = Held(rule=name, count=so_far.count + 1, oldest_ms=so_far.oldest_ms)
        seen += len(page)
        if most is not None and seen >= most:
            break
    return list(found.values())


async def release(
    ledger: Ledger, *, limit: int | None = None, rule: str | None = None, looks: int | None = None
) -> int:
    """Let held enrichments go, the oldest first; how many this call let go.

    Each goes in one step of its own: whoever else releases at the same time lets others go, and after a stop
    in between the rest is still held. What is held after this has begun stays. A record that is still to
    settle does so.

    Args:
        ledger: where they are.
        limit: at most so many; None for all.
        rule: only what this rule has planned.
        looks: look at so many, or a page more, and no further; None for all.
    """
    released, seen = 0, 0
    now_ms = await _now_ms(ledger.redis)
    async for page in _pages(ledger.redis, until_ms=now_ms):
        for entry in await _still_held(ledger, list(page)):
            if released == limit:
                return released
            if rule in {None, entry.rule}:
                settle_ms = max(0, (entry.due_ms or now_ms) - now_ms)
                go = Postponement(reason="released", delay_seconds=settle_ms / 1000)
                released += await ledger.postpone(entry, go, fence=entry.fence)
        seen += len(page)
        if looks is not None and seen >= looks:
            break
    return released


async def _still_held(ledger: Ledger, ids: list[str]) -> list[Entry]:
    """Those of the entries that are held, as they stand."""
    found = await ledger.entries(ids)
    if not found:
        return []
    # asked after the entries were read: one that somebody has just released would else be read in a worker's
    # hands, with the worker's own fence
    scores = await ledger.redis.zmscore(keys.HELD, [entry.id for entry in found])
    return [entry for entry, score in zip(found, scores, strict=True) if score is not None]


async def _pages(redis: Redis, *, until_ms: int) -> AsyncIterator[dict[str, int]]:
    """Ids of held entries with the time they were planned (ms), oldest first, while the set may shrink."""
    from_ms, passed = 0, set[str]()
    while True:
        most = PAGE + len(passed)
        answer = await redis.zrange(
            keys.HELD, from_ms, until_ms, byscore=True, offset=0, num=most, withscores=True
        )
        rows = cast("list[tuple[bytes, float]]", answer)
        page = {of_entry.decode(): int(planned_ms) for of_entry, planned_ms in rows}
        for of_entry in passed:
            page.pop(of_entry, None)
        if not page:
            return
        yield page
        last_ms = max(page.values())
        if last_ms > from_ms:
            from_ms, passed = last_ms, set()
        passed |= {of_entry for of_entry, planned_ms in page.items() if planned_ms == last_ms}


async def _now_ms(redis: Redis) -> int:
    seconds, microseconds = await redis.time()
    return int(seconds) * 1000 + int(microseconds) // 1000
