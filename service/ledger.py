"""The ledger: what was planned, tried, paid and found for each field of each record.

Every change is one Lua step in Redis, guarded by a fence: taking an enrichment in hand (`begin`) hands out a
new fence, and only its holder can call, settle or postpone. A worker that was paused or cut off, and whose
work was taken over, finds itself fenced out: it can neither spend nor overwrite.
"""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from service import jobs, keys
from service.accept import GRACE_MS
from service.brakes import Brakes, BreakerPolicy
from service.costs import METRIC_OF_STATE, price_list
from service.enrichment import (
    ENTRY_VERSION,
    RETENTION_SECONDS,
    Entry,
    State,
    decode_entry,
    new_job_id,
)
from service.redis_text import raw_hash, text, texts
from service.replicas import are_enough, ask_replicas
from service.scripts import Script, script_text
from service.together import Together, Urgency

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from redis.asyncio import Redis

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
    """The answer to "may I call now?".

    Attributes:
        verdict: `go`; `fenced`, somebody else holds it by now; `halted`, nobody may call; `parked`, the
            endpoint group is over its rate limit; `broken`, the field keeps timing out; `exhausted`, a budget
            is used up; `unconfirmed`, it is written down, and too few replicas have it.
        attempt: with `go`, which attempt it is.
        wait_seconds: with `parked` and `broken`, when to ask again.
        window: with `exhausted`, which of the budgets asked for.
    """

    verdict: Literal["go", "fenced", "halted", "parked", "broken", "exhausted", "unconfirmed"]
    attempt: int = 0
    wait_seconds: float = 0.0
    window: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """A budget counter that a call is charged to: its key, its limit, and when it may be forgotten."""

    key: str
    limit: int
    expires_ms: int


class Ledger:
    """The ledger in one Redis, for one event loop. Cheap to make; holds nothing but what is being asked.

    Args:
        redis: an asyncio client.
        zone: where the price list's days begin.
        clock: Unix seconds, for those days only; everything else goes by Redis's clock.
        breaker: when a field that keeps timing out is left alone.
        wait_replicas: how many replicas must know of a call before it may go.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        zone: dt.tzinfo = dt.UTC,
        clock: Callable[[], float] = time.time,
        breaker: BreakerPolicy | None = None,
        wait_replicas: int = 0,
    ) -> None:
        self.redis = redis
        self._together = Together(redis)
        self._wait_replicas = wait_replicas
        self.brakes = Brakes(redis)
        self._zone = zone
        self._clock = clock
        self._breaker = breaker or BreakerPolicy()
        self._template = jobs.job_template(redis)

        def script(name: str) -> Script:
            return Script(redis, script_text(name))

        self._begin, self._call, self._settle = script("begin"), script("call"), script("settle")
        self._postpone, self._promote, self._heartbeat = (
            script("postpone"),
            script("promote"),
            script("heartbeat"),
        )
        self._look_later = script("look_later")
        self._call_text = script_text("call")

    async def begin(self, job_id: str, of_entry: str, *, holder: str) -> Claim | NotClaimed:
        """Take the enrichment that a job delivers in hand.

        Args:
            job_id: the RQ job; an entry that has moved on to another job is left alone.
            of_entry: the entry's id.
            holder: the worker's name and something that is this execution's alone; the same holder asking
                again, as a client does whose connection broke, gets the same claim.
        """
        answer = await self._together.run(
            self._begin,
            keys=[keys.entry(of_entry), keys.ACTIVE, keys.ORGANIZATION],
            args=[job_id, of_entry, holder, LEASE_MS, ENTRY_VERSION],
            urgency=Urgency.BEGIN,
        )
        if answer[0] != b"taken":
            return NotClaimed(answer[0].decode())
        _, fence, flat, organization = answer
        raw = dict(zip(flat[::2], flat[1::2], strict=True))
        entry = decode_entry(of_entry, raw, organization_id=text(organization or b""))
        if entry is None:
            return NotClaimed("missing")
        return Claim(entry=entry, fence=int(fence))

    async def permit_call(
        self,
        claim: Claim,
        *,
        group: str,
        value_before: str | None = None,
        charges: Sequence[Charge] = (),
        despite_halt: bool = False,
        only_ask: bool = False,
        trial_seconds: float = 180.0,
    ) -> Permission:
        """Ask whether Close may be asked now, and write down that it will be.

        Args:
            claim: the enrichment in hand.
            group: the endpoint group whose parking counts.
            value_before: JSON of what the field held, to tell later whether an overwriting call ran.
            charges: the budgets it falls under; a credit is reserved in all of them or in none.
            despite_halt: ask although calls are halted, as a trial.
            only_ask: learn whether it could go, and change nothing.
            trial_seconds: how long others wait when this is the trial call of a field that kept timing out.
        """
        one = claim.entry.id
        answer, confirmed = await self._ask_to_call(
            [
                keys.entry(one),
                keys.ACTIVE,
                keys.COUNTS,
                keys.HISTORY,
                keys.story(one),
                keys.HALT,
                keys.park(group),
                keys.breaker(claim.entry.field_id),
                price_list(self._clock(), self._zone),
                *(charge.key for charge in charges),
            ],
            [
                one,
                claim.fence,
                LEASE_MS,
                RETENTION_SECONDS,
                value_before or "",
                int(despite_halt),
                int(only_ask),
                round(trial_seconds * 1000),
                *(part for charge in charges for part in (charge.limit, charge.expires_ms)),
            ],
            writes=not only_ask,
        )
        match answer[0]:
            case b"go" if confirmed:
                return Permission(verdict="go", attempt=int(answer[1]))
            case b"go":
                return Permission(verdict="unconfirmed")
            case b"parked" | b"broken" as verdict:
                return Permission(verdict=verdict.decode(), wait_seconds=int(answer[1]) / 1000)
            case b"exhausted":
                return Permission(verdict="exhausted", window=int(answer[1]) - 1)
            case other:
                return Permission(verdict=other.decode())

    async def _ask_to_call(
        self, script_keys: list[str], args: list[Any], *, writes: bool
    ) -> tuple[list[Any], bool]:
        """The script's answer, and whether enough replicas have what it wrote."""
        if not self._wait_replicas or not writes:
            answer = await self._together.run(self._call, keys=script_keys, args=args, urgency=Urgency.CALL)
            return answer, True
        async with self.redis.pipeline(transaction=False) as pipeline:
            # by its text: a Redis that took over in between may not know the digest
            pipeline.eval(self._call_text, len(script_keys), *script_keys, *args)
            ask_replicas(pipeline, self._wait_replicas)
            answer, _, have_it = await pipeline.execute()
        return answer, await are_enough(self.redis, wanted=self._wait_replicas, have_it=have_it)

    async def settle(self, claim: Claim, settlement: Settlement, *, charges: Sequence[Charge] = ()) -> bool:
        """End an enrichment; False where somebody else holds it by now and nothing was changed.

        Args:
            claim: the enrichment in hand.
            settlement: how it ends.
            charges: what its call was charged to, given back if the settlement says that it did not run.

        Raises:
            ValueError: the state is not a final one.
        """
        if not settlement.state.final:
            raise ValueError(f"an enrichment cannot end as {settlement.state}")
        entry = claim.entry
        job_id = new_job_id(entry.id, version=entry.version)
        answer = await self._together.run(
            self._settle,
            urgency=Urgency.END,
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
                price_list(self._clock(), self._zone),
                keys.breaker(entry.field_id),
                keys.BREAKERS,
                keys.ATTENTION,
                *(charge.key for charge in charges),
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
                METRIC_OF_STATE.get(settlement.state, ""),
                int(settlement.answered),
                entry.field_id,
                *self._template,
            ],
        )
        return bool(answer != b"fenced")

    async def postpone(
        self, entry: Entry, postponement: Postponement, *, fence: int, charges: Sequence[Charge] = ()
    ) -> bool:
        """Put an enrichment back with a new job; False where somebody else holds it by now.

        Args:
            entry: what is put back.
            postponement: how.
            fence: the claim's, or for the sweeper the one it saw.
            charges: what its call was charged to, given back if the postponement says that it did not run.
        """
        job_id = new_job_id(entry.id, version=entry.version)
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
            "blockers": len(postponement.blocked_by),
            "field": entry.field_id,
            "timed_out": postponement.timed_out,
            "breaker_most": self._breaker.most_timeouts,
            "breaker_first_ms": round(self._breaker.first_pause_seconds * 1000),
            "breaker_longest_ms": round(self._breaker.longest_pause_seconds * 1000),
            **({} if overdue is None else {"overdue_ms": round(overdue * 1000)}),
        }
        answer = await self._together.run(
            self._postpone,
            urgency=Urgency.END,
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
                price_list(self._clock(), self._zone),
                keys.breaker(entry.field_id),
                keys.BREAKERS,
                keys.HELD,
                *map(keys.entry, postponement.blocked_by),
                *(charge.key for charge in charges),
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
            args=job_ids,
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
        return next(iter(await self.entries([of_entry])), None)

    async def entries(self, ids: Sequence[str]) -> list[Entry]:
        """Those of the entries that exist, in one round trip."""
        async with self.redis.pipeline(transaction=False) as pipeline:
            pipeline.get(keys.ORGANIZATION)
            for one in ids:
                pipeline.hgetall(keys.entry(one))
            organization, *rows = await pipeline.execute()
        found = (
            decode_entry(one, raw_hash(raw), organization_id=text(organization or b""))
            for one, raw in zip(ids, rows, strict=True)
        )
        return [entry for entry in found if entry is not None]

    async def entries_of(self, object_id: str) -> list[Entry]:
        """All enrichments of one lead or contact, oldest first."""
        ids = texts(await self.redis.hkeys(keys.object_entries(object_id)))
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
