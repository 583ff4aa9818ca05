"""Dead letters: enrichments that ended without an answer, and what a person can do with them.

They are the entries that ended as dead, held or rejected. An index by the moment they ended keeps looking at
them cheap: pages, never the whole ledger.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, cast

import msgspec

from service import jobs, keys
from service.accept import GRACE_MS
from service.dead_letter_filter import Page, Place, groups
from service.enrichment import (
    RETENTION_SECONDS,
    Entry,
    State,
    decode_entry,
    new_job_id,
)
from service.redis_text import raw_hash, text
from service.scripts import Script, script_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from redis.asyncio import Redis

    from service.dead_letter_filter import Group, Wanted
    from service.ledger import Ledger

PAGE = 500
"""Entries looked at, and acted on, in one round trip."""

RETRIED = "retried by a person"
DROPPED = "dropped by a person: it stays as it is"


class DeadLetters:
    """The dead letters of one ledger.

    Several people may act on them at the same time, and whoever is stopped in between has done a part: each
    entry is retried or dropped in one step of its own, by one of them.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._redis: Redis = ledger.redis
        self._template = jobs.job_template(ledger.redis)
        self._retry = Script(ledger.redis, script_text("retry"))
        self._drop = Script(ledger.redis, script_text("drop"))

    async def count(self) -> int:
        """How many there are at most: those that have expired since are counted until somebody meets them."""
        return int(await self._redis.zcard(keys.ATTENTION))

    async def now_ms(self) -> int:
        """Redis's clock, Unix milliseconds."""
        seconds, microseconds = await self._redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def page(self, wanted: Wanted, *, limit: int, after: Place | None = None) -> Page:
        """The newest dead letters, or those that come after a place.

        Args:
            wanted: which ones.
            limit: at most so many, 1 or more.
            after: where the page before ended.
        """
        found: list[Entry] = []
        async for entries in self.find(wanted, until_ms=await self.now_ms(), after=after):
            found += entries
            if len(found) > limit:
                break
        shown = found[:limit]
        last = shown[-1] if len(found) > limit else None
        return Page(entries=tuple(shown), next=None if last is None else _place(last))

    async def look(
        self, wanted: Wanted, *, until_ms: int, most: int, looks: int, after: Place | None = None
    ) -> Page:
        """The newest that are wanted, for whoever cannot wait until all have been looked at.

        Args:
            wanted: which ones.
            until_ms: the moment that ages are counted from; what ended later is left out.
            most: at most so many.
            looks: not many more than so many are looked at.
            after: where the look before ended.
        """
        oldest_ms, newest_ms = wanted.span_ms(now_ms=until_ms)
        found: list[Entry] = []
        seen = 0
        async for places in self._places(oldest_ms, newest_ms, after):
            found += [entry for entry in await self._read(places) if wanted.takes(entry)]
            seen += len(places)
            if len(found) > most:
                return Page(entries=tuple(found[:most]), next=_place(found[most - 1]))
            if seen >= looks:
                return Page(entries=tuple(found), next=places[-1])
        return Page(entries=tuple(found), next=None)

    async def tally(self, wanted: Wanted, *, until_ms: int) -> list[Group]:
        """How many there are of each rule and state, the most first.

        Args:
            wanted: which ones.
            until_ms: the moment that ages are counted from; what ended later is left out.
        """
        counts: Counter[tuple[str, State]] = Counter()
        found: list[Group] = []
        async for entries in self.find(wanted, until_ms=until_ms):
            found = groups(entries, so_far=counts)
        return found

    async def find(
        self, wanted: Wanted, *, until_ms: int, after: Place | None = None
    ) -> AsyncIterator[list[Entry]]:
        """All that are wanted, the newest first, in pages, while the index may change.

        Args:
            wanted: which ones.
            until_ms: the moment that ages are counted from; what ended later is left out.
            after: where to begin.
        """
        oldest_ms, newest_ms = wanted.span_ms(now_ms=until_ms)
        async for places in self._places(oldest_ms, newest_ms, after):
            entries = [entry for entry in await self._read(places) if wanted.takes(entry)]
            if entries:
                yield entries

    async def named(self, ids: Sequence[str]) -> list[Entry]:
        """Those of the entries that are dead letters, in the order in which they are named."""
        if not ids:
            return []
        scores = await self._redis.zmscore(keys.ATTENTION, list(ids))
        places = [
            Place(ended_ms=int(score), id=one)
            for one, score in zip(ids, scores, strict=True)
            if score is not None
        ]
        return await self._read(places)

    async def retry(self, entries: Sequence[Entry]) -> int:
        """Plan dead letters anew, behind all live work; how many this call has planned.

        Attempts are counted from nothing. Where an earlier call may have run, the field is read back first.
        One that has changed since it was read is left alone.
        """
        iso = jobs.stamp()
        done = 0
        for page in _slices(entries):
            steps = []
            for entry in page:
                job_id = new_job_id(entry.id, version=entry.version)
                wish = {
                    "id": entry.id,
                    "fence": entry.fence,
                    "job": job_id,
                    "reason": RETRIED,
                    "ttl": RETENTION_SECONDS,
                    "grace_ms": GRACE_MS,
                    "iso": iso,
                    "origin": jobs.BULK_QUEUE,
                }
                script_keys = [
                    keys.entry(entry.id),
                    keys.ACTIVE,
                    keys.COUNTS,
                    keys.HISTORY,
                    keys.story(entry.id),
                    jobs.job_key(job_id),
                    jobs.ALL_QUEUES_KEY,
                    jobs.queue_key(jobs.BULK_QUEUE),
                    jobs.scheduled_key(jobs.BULK_QUEUE),
                    keys.ATTENTION,
                    keys.object_entries(entry.object_id),
                ]
                steps.append((script_keys, [msgspec.json.encode(wish), *self._template]))
            done += (await self._retry.several(steps)).count(b"retried")
        return done

    async def drop(self, entries: Sequence[Entry]) -> int:
        """Take dead letters off the list for good, each with a line in its story; how many this call has.

        One that has changed since it was read is left alone.
        """
        done = 0
        for page in _slices(entries):
            steps = [
                (
                    [keys.entry(entry.id), keys.ATTENTION, keys.HISTORY, keys.story(entry.id)],
                    [entry.id, entry.fence, DROPPED, RETENTION_SECONDS],
                )
                for entry in page
            ]
            done += (await self._drop.several(steps)).count(b"dropped")
        return done

    async def all_wanted(
        self,
        act: Callable[[Sequence[Entry]], Awaitable[int]],
        wanted: Wanted,
        *,
        most: int,
        until_ms: int,
    ) -> int:
        """Retry or drop all that are wanted, a page at a time; how many this call has.

        Args:
            act: `retry` or `drop`.
            wanted: which ones.
            most: at most so many.
            until_ms: the moment that ages are counted from; what ended later is left out.
        """
        done = 0
        async for entries in self.find(wanted, until_ms=until_ms):
            done += await act(entries[: most - done])
            if done >= most:
                break
        return done

    async def _places(
        self, oldest_ms: int, newest_ms: int, after: Place | None
    ) -> AsyncIterator[list[Place]]:
        offset = 0
        while True:
            top_ms = newest_ms if after is None else min(newest_ms, after.ended_ms)
            answer = await self._redis.zrange(
                keys.ATTENTION,
                top_ms,
                oldest_ms,
                desc=True,
                byscore=True,
                offset=offset,
                num=PAGE,
                withscores=True,
            )
            rows = cast("list[tuple[bytes, float]]", answer)
            if not rows:
                return
            places = [Place(ended_ms=int(score), id=text(one)) for one, score in rows]
            fresh = [one for one in places if after is None or one < after]
            # many may have ended in the same millisecond: those before the place are passed over
            offset = 0 if fresh else offset + len(rows)
            if fresh:
                after = fresh[-1]
                yield fresh

    async def _read(self, places: Sequence[Place]) -> list[Entry]:
        """Those of the entries that exist and can be read; expired ones leave the index."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.get(keys.ORGANIZATION)
            for place in places:
                pipeline.hgetall(keys.entry(place.id))
            organization, *rows = await pipeline.execute()
        entries: list[Entry] = []
        gone: list[str] = []
        for place, raw in zip(places, rows, strict=True):
            if not raw:
                gone.append(place.id)
                continue
            try:
                entry = decode_entry(place.id, raw_hash(raw), organization_id=text(organization or b""))
            except ValueError:  # written by a newer release: that one's business
                continue
            if entry is not None:
                entries.append(entry)
        if gone:
            await self._redis.zrem(keys.ATTENTION, *gone)
        return entries


def _place(entry: Entry) -> Place:
    return Place(ended_ms=entry.ended_ms or 0, id=entry.id)


def _slices(entries: Sequence[Entry]) -> list[Sequence[Entry]]:
    return [entries[at : at + PAGE] for at in range(0, len(entries), PAGE)]
