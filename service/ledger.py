"""The ledger: what was planned, tried, paid and found for each field of each record.

Every change is one Lua step in Redis, guarded by a fence: taking an enrichment in hand (`begin`) hands out a
new fence, and only its holder can call, settle or postpone. A worker that was paused or cut off, and whose
work was taken over, finds itself fenced out: it can neither spend nor overwrite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from service import jobs, keys
from service.accept import GRACE_MS
from service.enrichment import (
    ENTRY_VERSION,
    RETENTION_SECONDS,
    Entry,
    State,
    decode_entry,
    new_job_id,
)
from service.redis_text import raw_hash, texts
from service.scripts import script_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redis.asyncio import Redis
    from redis.commands.core import AsyncScript

    from service.transitions import Postponement, Settlement

LEASE_MS = 30_000
"""An entry in hand is given up by its worker's silence for this long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """An enrichment in this execution's hands.

    Attributes:
        entry: as it stood when it was taken.
        fence: what proves that nobody has taken it since.
    """

    entry: Entry
    fence: int


@dataclass(frozen=True, slots=True)
class NotClaimed:
    """Nothing to do for this job: `missing`, `stale`, `busy` or `newer` (see begin.lua)."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """The answer to "may I call now?": `go` as attempt number so-and-so, `fenced`, `halted`, or `parked`."""

    verdict: Literal["go", "fenced", "halted", "parked"]
    attempt: int = 0
    wait_seconds: float = 0.0


PROBE_INTERVAL_SECONDS = 300
"""How often one call is tried while a refused key or used-up credits halt all others."""

PERSON = "person"
"""The kind of a halt that only a person lifts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """Why no call leaves; `kind` is what the reply that caused it was about, or `PERSON`."""

    reason: str
    kind: str
    since_ms: int


class Ledger:
    """The ledger in one Redis. Cheap to make; holds no state of its own."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._template = jobs.job_template(redis)

        def script(name: str) -> AsyncScript:
            return redis.register_script(script_text(name))

        self._begin, self._call, self._settle = script("begin"), script("call"), script("settle")
        self._postpone, self._promote, self._heartbeat = (
            script("postpone"),
            script("promote"),
            script("heartbeat"),
        )
        self._look_later, self._halt, self._resume = script("look_later"), script("halt"), script("resume")

    async def begin(self, job_id: str, of_entry: str, *, holder: str) -> Claim | NotClaimed:
        """Take the enrichment that a job delivers in hand.

        Args:
            job_id: the RQ job; an entry that has moved on to another job is left alone.
            of_entry: the entry's id.
            holder: the worker's name and something that is this execution's alone; the same holder asking
                again, as a client does whose connection broke, gets the same claim.
        """
        answer = await self._begin(
            keys=[keys.entry(of_entry), keys.ACTIVE],
            args=[job_id, of_entry, holder, LEASE_MS, ENTRY_VERSION],
        )
        if answer[0] != b"taken":
            return NotClaimed(answer[0].decode())
        flat = answer[2]
        entry = decode_entry(of_entry, dict(zip(flat[::2], flat[1::2], strict=True)))
        if entry is None:
            return NotClaimed("missing")
        return Claim(entry=entry, fence=int(answer[1]))

    async def permit_call(
        self,
        claim: Claim,
        *,
        group: str,
        value_before: str | None,
        despite_halt: bool = False,
    ) -> Permission:
        """Ask whether Close may be asked now, and write down that it will be.

        Args:
            claim: the enrichment in hand.
            group: the endpoint group whose parking counts.
            value_before: JSON of what the field held, to tell later whether an overwriting call ran.
            despite_halt: ask although calls are halted, as a trial.
        """
        one = claim.entry.id
        answer = await self._call(
            keys=[
                keys.entry(one),
                keys.ACTIVE,
                keys.COUNTS,
                keys.HISTORY,
                keys.story(one),
                keys.HALT,
                keys.park(group),
            ],
            args=[one, claim.fence, LEASE_MS, RETENTION_SECONDS, value_before or "", int(despite_halt)],
        )
        match answer[0]:
            case b"go":
                return Permission(verdict="go", attempt=int(answer[1]))
            case b"parked":
                return Permission(verdict="parked", wait_seconds=int(answer[1]) / 1000)
            case other:
                return Permission(verdict=other.decode())

    async def settle(self, claim: Claim, settlement: Settlement) -> bool:
        """End an enrichment; False where somebody else holds it by now and nothing was changed.

        Raises:
            ValueError: the state is not a final one.
        """
        if not settlement.state.final:
            raise ValueError(f"an enrichment cannot end as {settlement.state}")
        entry = claim.entry
        job_id = new_job_id(entry.id)
        answer = await self._settle(
            keys=[
                keys.entry(entry.id),
                keys.ACTIVE,
                keys.COUNTS,
                keys.HISTORY,
                keys.story(entry.id),
                keys.object_entries(entry.object_id),
                jobs.job_key(job_id),
                jobs.ALL_QUEUES_KEY,
                jobs.queue_key(entry.queue),
                jobs.scheduled_key(entry.queue),
            ],
            args=[
                entry.id,
                claim.fence,
                settlement.state,
                settlement.reason,
                RETENTION_SECONDS,
                b"" if settlement.value is None else msgspec.json.encode(settlement.value),
                settlement.confidence or "",
                settlement.reasoning or "",
                int(settlement.uncalled),
                job_id,
                jobs.stamp(),
                entry.queue,
                GRACE_MS,
                *self._template,
            ],
        )
        return bool(answer != b"fenced")

    async def postpone(self, entry: Entry, postponement: Postponement, *, fence: int) -> bool:
        """Put an enrichment back with a new job; False where somebody else holds it by now.

        Args:
            entry: what is put back.
            postponement: how.
            fence: the claim's, or for the sweeper the one it saw.
        """
        job_id = new_job_id(entry.id)
        overdue = postponement.overdue_seconds
        wish = {
            "id": entry.id,
            "fence": fence,
            "job": job_id,
            "reason": postponement.reason,
            "delay_ms": round(postponement.delay_seconds * 1000),
            "ttl": RETENTION_SECONDS,
            "grace_ms": GRACE_MS,
            "iso": jobs.stamp(),
            "origin": entry.queue,
            "front": postponement.front,
            "ambiguous": postponement.ambiguous,
            "uncalled": postponement.uncalled,
            "unattempted": postponement.unattempted,
            "failed": postponement.failed,
            "unreachable": postponement.unreachable,
            "blocked": bool(postponement.blocked_by),
            **({} if overdue is None else {"overdue_ms": round(overdue * 1000)}),
        }
        answer = await self._postpone(
            keys=[
                keys.entry(entry.id),
                keys.ACTIVE,
                keys.COUNTS,
                keys.HISTORY,
                keys.story(entry.id),
                jobs.job_key(job_id),
                jobs.ALL_QUEUES_KEY,
                jobs.queue_key(entry.queue),
                jobs.scheduled_key(entry.queue),
                *map(keys.entry, postponement.blocked_by),
            ],
            args=[msgspec.json.encode(wish), *self._template],
        )
        return bool(answer == b"postponed")

    async def wake(self, of_entry: str) -> bool:
        """Let an enrichment that waits for others of its record run at once; False where it does not wait."""
        entry = await self.entry(of_entry)
        if entry is None or not entry.blocked or entry.state is not State.WAITING:
            return False
        return await self.promote(entry.queue, [entry.job_id]) == 1

    async def promote(self, queue: str, job_ids: Sequence[str]) -> int:
        """Move scheduled jobs into their queue; how many of them were still scheduled."""
        moved = await self._promote(
            keys=[jobs.scheduled_key(queue), jobs.queue_key(queue), *map(jobs.job_key, job_ids)],
            args=[jobs.stamp(), *job_ids],
        )
        return int(moved)

    async def heartbeat(self, fences: Mapping[str, int]) -> list[str]:
        """Prolong the leases of entries in hand.

        Args:
            fences: entry id to the fence held.

        Returns:
            The ids of those that somebody else holds by now.
        """
        if not fences:
            return []
        lost = await self._heartbeat(
            keys=[keys.ACTIVE, *map(keys.entry, fences)],
            args=[LEASE_MS, *(part for item in fences.items() for part in item)],
        )
        return texts(lost)

    async def look_later(self, of_entry: str) -> None:
        """Nothing is wrong with an overdue entry: the sweeper need not look at it for a while."""
        await self._look_later(keys=[keys.ACTIVE], args=[of_entry, GRACE_MS])

    async def entry(self, of_entry: str) -> Entry | None:
        """One entry, or None."""
        return decode_entry(of_entry, raw_hash(await self.redis.hgetall(keys.entry(of_entry))))

    async def entries(self, ids: Sequence[str]) -> list[Entry]:
        """Those of the entries that exist, in one round trip."""
        async with self.redis.pipeline(transaction=False) as pipeline:
            for one in ids:
                pipeline.hgetall(keys.entry(one))
            rows = await pipeline.execute()
        found = (decode_entry(one, raw) for one, raw in zip(ids, rows, strict=True))
        return [entry for entry in found if entry is not None]

    async def entries_of(self, object_id: str) -> list[Entry]:
        """All enrichments of one lead or contact, oldest first."""
        ids = texts(await self.redis.smembers(keys.object_entries(object_id)))
        found = await self.entries(sorted(ids))
        return sorted(found, key=lambda entry: (entry.planned_ms, entry.id))

    async def story(self, of_entry: str) -> list[dict[str, Any]]:
        """What happened to one enrichment, oldest first; at most the last 100 facts."""
        lines = await self.redis.lrange(keys.story(of_entry), 0, -1)
        return [msgspec.json.decode(line) for line in lines]

    async def counts(self) -> dict[State, int]:
        """How many entries are in each state, zero ones included."""
        raw = raw_hash(await self.redis.hgetall(keys.COUNTS))
        return {state: int(raw.get(state.value.encode(), 0)) for state in State}

    async def park(self, group: str, *, seconds: float) -> None:
        """Let no call of an endpoint group leave for so long; a longer parking stays."""
        milliseconds = max(1, round(seconds * 1000))
        async with self.redis.pipeline() as pipeline:
            pipeline.set(keys.park(group), "1", px=milliseconds, nx=True)
            pipeline.pexpire(keys.park(group), milliseconds, gt=True)
            await pipeline.execute()

    async def halt(self, *, reason: str, kind: str) -> bool:
        """Stop every call of the organization; False where it was halted already and stays so as it was.

        Args:
            reason: in words, for people.
            kind: what the halt is about; `PERSON` when somebody asked for it, which replaces any other halt.
        """
        changed = await self._halt(
            keys=[keys.HALT, keys.PROBE], args=[reason, kind, PERSON, PROBE_INTERVAL_SECONDS]
        )
        return bool(changed)

    async def resume(self, *, automatic_only: bool = False) -> bool:
        """Let calls leave again; False where they were not halted.

        Args:
            automatic_only: leave a halt that a person asked for.
        """
        return bool(await self._resume(keys=[keys.HALT], args=[PERSON if automatic_only else ""]))

    async def may_try(self) -> bool:
        """Whether one call may be tried although calls are halted: for one asker in each interval."""
        halt = await self.halted()
        if halt is None or halt.kind == PERSON:
            return False
        return bool(await self.redis.set(keys.PROBE, "1", ex=PROBE_INTERVAL_SECONDS, nx=True))

    async def try_soon(self) -> None:
        """Let the next trial come at once: a worker has just started, perhaps with a better key."""
        await self.redis.delete(keys.PROBE)

    async def halted(self) -> Halt | None:
        """Why nothing is called at present, or None."""
        raw = raw_hash(await self.redis.hgetall(keys.HALT))
        if not raw:
            return None
        return Halt(
            reason=raw.get(b"reason", b"").decode(),
            kind=raw.get(b"kind", b"").decode(),
            since_ms=int(raw.get(b"since_ms", 0)),
        )
