"""Comparing the ledger with its indexes, its counts and RQ, by hand, and putting right what can be.

Everything is read in pages while the service runs. What looks wrong is read once more in one step before it
is believed, so whatever merely moved in between is not reported. What is wrong is decided in
`service.findings`; every repair decides again in Redis, so that it is safe beside workers and other checks.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from service import jobs, keys
from service.check_jobs import check_jobs, executions_key, job_places
from service.enrichment import State
from service.findings import HOPELESS, EntryFacts, Kind, Report, entry_problem, wrong_counts
from service.redis_text import text, texts
from service.scripts import Script, script_text
from service.transitions import Postponement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from redis.asyncio import Redis

    from service.ledger import Ledger

PAGE = 500
"""Keys or ids read in one round trip."""

_ENTRY_PREFIX = keys.entry("")
_INDEXES = (keys.ACTIVE, keys.HELD, keys.ATTENTION)
_FACTS = ("state", "v", "holder", "ended_ms", "dropped_ms", "job", "queue")


async def check(ledger: Ledger, *, repair: bool = False, read_back_seconds: float = 5.0) -> Report:
    """Look for what does not fit together, and put it right if asked to.

    Args:
        ledger: what is looked at.
        repair: put right what can be.
        read_back_seconds: how long to wait, after a call whose end nobody saw, before the field is read back.

    Raises:
        redis.RedisError: Redis went away. What was repaired until then stays so; doing it again is safe.
    """
    return await _Check(ledger, repair=repair, read_back_seconds=read_back_seconds).run()


class _Check:
    """One check: it keeps the ids of what looked wrong, never of all there is but for RQ's jobs."""

    def __init__(self, ledger: Ledger, *, repair: bool, read_back_seconds: float) -> None:
        self._ledger = ledger
        self._redis: Redis = ledger.redis
        self._repair = repair
        self._read_back_seconds = read_back_seconds
        self._reindex = Script(ledger.redis, script_text("reindex"))
        self._report = Report()

    async def run(self) -> Report:
        places = await job_places(self._redis)
        suspects, wrong = await self._look_at_entries({job_id for _, job_id in places})
        for one in suspects | await self._index_members_without_entry():
            await self._judge_entry(one)
        await check_jobs(self._redis, places, report=self._report, repair=self._repair)
        for state, missing in wrong.items():
            if self._repair:
                await self._redis.hincrby(keys.COUNTS, state, missing)
            self._report.note(Kind.COUNT, f"{state}: {-missing:+d}", repaired=self._repair)
        return self._report

    # Entries

    async def _look_at_entries(self, queued: set[str]) -> tuple[set[str], dict[str, int]]:
        """The ids of entries that look wrong, and the counts that are."""
        seen: set[str] = set()
        suspects: set[str] = set()
        actual: Counter[str] = Counter()
        before = await self._changes()
        async for page in self._entry_ids():
            fresh = [one for one in page if one not in seen]
            seen.update(fresh)
            for one, (facts, job_id) in zip(fresh, await self._glance(fresh), strict=True):
                actual[facts.state or ""] += 1
                looks_lost = facts.needs_job and job_id not in queued
                if looks_lost or entry_problem(facts) is not None:
                    suspects.add(one)
        counted = {str(state): count for state, count in (await self._ledger.counts()).items()}
        self._report.changes = await self._changes() - before
        self._report.entries = len(seen)
        return suspects, wrong_counts(counted=counted, actual=actual, changes=self._report.changes)

    async def _changes(self) -> int:
        """How many lines the history has ever had: every change of any entry adds one."""
        if not await self._redis.exists(keys.HISTORY):
            return 0
        return int((await self._redis.xinfo_stream(keys.HISTORY))["entries-added"])

    async def _entry_ids(self) -> AsyncIterator[list[str]]:
        cursor = 0
        while True:
            cursor, found = await self._redis.scan(cursor, match=f"{_ENTRY_PREFIX}*", count=PAGE)
            if found:
                yield [one.removeprefix(_ENTRY_PREFIX) for one in texts(found)]
            if cursor == 0:
                return

    async def _glance(self, ids: list[str]) -> list[tuple[EntryFacts, str]]:
        """Facts about entries without their jobs, and the ids of those."""
        if not ids:
            return []
        async with self._redis.pipeline() as pipeline:
            pipeline.time()
            for index in _INDEXES:
                pipeline.zmscore(index, ids)
            for one in ids:
                pipeline.hmget(keys.entry(one), _FACTS)
            time, active, held, attention, *rows = await pipeline.execute()
        return [
            (_facts(row, scores, now_ms=_ms(time), has_job=True), text(row[5] or b""))
            for row, *scores in zip(rows, active, held, attention, strict=True)
        ]

    async def _index_members_without_entry(self) -> set[str]:
        found: set[str] = set()
        for index in _INDEXES:
            cursor = 0
            while True:
                cursor, rows = await self._redis.zscan(index, cursor, count=PAGE)
                ids = [text(one) for one, _ in rows]
                async with self._redis.pipeline(transaction=False) as pipeline:
                    for one in ids:
                        pipeline.exists(keys.entry(one))
                    exist = await pipeline.execute()
                found.update(one for one, there in zip(ids, exist, strict=True) if not there)
                if cursor == 0:
                    break
        return found

    async def _judge_entry(self, one: str) -> None:
        """Look at one entry and its job in one step, and say or put right what is wrong."""
        kind = await self._entry_problem(one)
        if kind is not None:
            repaired = self._repair and kind not in HOPELESS and await self._repair_entry(one, kind)
            self._report.note(kind, one, repaired=repaired)

    async def _entry_problem(self, one: str) -> Kind | None:
        named = await self._redis.hmget(keys.entry(one), ["job", "queue"])
        job_id, queue = text(named[0] or b""), text(named[1] or jobs.LIVE_QUEUE)
        async with self._redis.pipeline() as pipeline:
            pipeline.hmget(keys.entry(one), _FACTS)
            for index in _INDEXES:
                pipeline.zscore(index, one)
            pipeline.time()
            pipeline.exists(jobs.job_key(job_id))
            pipeline.zscore(jobs.scheduled_key(queue), job_id)
            pipeline.lpos(jobs.queue_key(queue), job_id)
            pipeline.lpos(jobs.intermediate_key(queue), job_id)
            pipeline.zcard(executions_key(job_id))
            row, active, held, attention, time, exists, *places, running = await pipeline.execute()
        has_job = bool(exists) and (running > 0 or any(place is not None for place in places))
        # another job delivers it by now, so somebody is at work on it
        moved = text(row[5] or b"") != job_id
        return entry_problem(
            _facts(row, (active, held, attention), now_ms=_ms(time), has_job=has_job or moved)
        )

    async def _repair_entry(self, one: str, kind: Kind) -> bool:
        if kind in {Kind.NO_JOB, Kind.WORKER_LOST, Kind.UNWATCHED}:
            try:
                entry = await self._ledger.entry(one)
            except ValueError:
                return False  # a person has to look
            if entry is None or entry.state.final:
                return True  # it has ended meanwhile
            calling = entry.state is State.CALLING
            wait_seconds = max(0, (entry.due_ms or 0) - _ms(await self._redis.time())) / 1000
            then = Postponement(
                reason="found without a job" if kind is Kind.NO_JOB else "found with nobody at work on it",
                delay_seconds=self._read_back_seconds if calling else wait_seconds,
                ambiguous=calling,
                overdue_seconds=0.0 if kind is Kind.WORKER_LOST else None,
            )
            # where it is refused, somebody has taken it in hand
            await self._ledger.postpone(entry, then, fence=entry.fence)
        index_keys = [keys.entry(one), *_INDEXES]
        await self._reindex(keys=index_keys, args=[one])
        return await self._entry_problem(one) is None


def _facts(row: list[Any], scores: Iterable[Any], *, now_ms: int, has_job: bool) -> EntryFacts:
    state, version, holder, ended_ms, dropped_ms = row[:5]
    active_ms, held_ms, attention_ms = scores
    return EntryFacts(
        state=None if state is None else state.decode(errors="replace"),
        version=_number(version) or 0,
        holder=text(holder or b""),
        ended_ms=_number(ended_ms),
        dropped_ms=_number(dropped_ms),
        active_ms=active_ms,
        held_ms=held_ms,
        attention_ms=attention_ms,
        has_job=has_job,
        now_ms=now_ms,
    )


def _ms(time: tuple[int, int]) -> int:
    seconds, microseconds = time
    return int(seconds) * 1000 + int(microseconds) // 1000


def _number(raw: bytes | None) -> int | None:
    return int(raw) if raw is not None and raw.isdigit() else None
