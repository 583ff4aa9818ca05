"""Accepter and ledger on a real Redis for tests: short words for planning, taking in hand and looking."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service import jobs, keys
from service.accept import Accepted, Accepter
from service.enrichment import Entry, State, entry_id
from service.event import Event
from service.ledger import Claim, Ledger
from service.planning import PlannedEnrichment
from service.rules import Mode, ObjectType, Priority, Target
from service.transitions import Postponement, Settlement

if TYPE_CHECKING:
    from redis.asyncio import Redis

ORGANIZATION = "orga_1"
LEAD = "lead_1"
FIELD = "cf_industry"
FIRST_STAMP = "2026-10-14T09:30:12.000000"
SECOND_STAMP = "2026-10-14T09:30:14.500000"
LONG_AGO_MS = 1_000


def event(
    id: str = "ev_1",  # noqa: A002  Close's own word
    *,
    action: str = "created",
    stamp: str = FIRST_STAMP,
    object_id: str = LEAD,
) -> Event:
    return Event(
        id=id,
        organization_id=ORGANIZATION,
        object_type="lead",
        object_id=object_id,
        lead_id=object_id,
        action=action,
        date_created=FIRST_STAMP,
        date_updated=stamp,
    )


def wanted(
    field_id: str = FIELD,
    *,
    object_id: str = LEAD,
    rule: str = "Industry",
    mode: Mode = Mode.FILL,
    settle_seconds: float = 0.0,
    priority: Priority = Priority.NORMAL,
    reopens: bool = False,
    judged: bool = True,
) -> PlannedEnrichment:
    return PlannedEnrichment(
        target=Target(
            rule=rule,
            object_type=ObjectType.LEAD,
            field_id=field_id,
            field_name="Industry",
            mode=mode,
            settle_seconds=settle_seconds,
            priority=priority,
        ),
        object_id=object_id,
        lead_id=object_id,
        judged=judged,
        reopens=reopens,
    )


def id_of(field_id: str = FIELD, *, object_id: str = LEAD) -> str:
    return entry_id(organization_id=ORGANIZATION, object_id=object_id, field_id=field_id)


class LedgerBox:
    """One Redis with what writes to it."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.accepter = Accepter(redis)
        self.ledger = Ledger(redis)
        self._holders = 0

    async def accept(
        self, of_event: Event | None = None, *items: PlannedEnrichment, bulk: bool = False
    ) -> list[str]:
        accepted = await self.accepter.accept(of_event or event(), items or (wanted(),), bulk=bulk)
        return [one.result for one in accepted]

    async def plan(self, *, object_id: str = LEAD, **options: object) -> Entry:
        """One planned entry."""
        item = wanted(object_id=object_id, **options)  # type: ignore[arg-type]  # passed on as they are
        accepted: list[Accepted] = await self.accepter.accept(event(object_id=object_id), [item])
        return await self.entry(accepted[0].enrichment)

    async def entry(self, of_entry: str) -> Entry:
        entry = await self.ledger.entry(of_entry)
        if entry is None:
            raise AssertionError(of_entry)
        return entry

    async def claim(self, of_entry: str, *, holder: str | None = None, job_id: str | None = None) -> Claim:
        """The entry in the hands of a worker that nobody else is."""
        self._holders += 1
        entry = await self.entry(of_entry)
        taken = await self.ledger.begin(
            job_id or entry.job_id, of_entry, holder=holder or f"worker/{self._holders}"
        )
        if isinstance(taken, Claim):
            return taken
        raise AssertionError(taken.why)

    async def calling(self, of_entry: str) -> Claim:
        """The same, with the call written down."""
        claim = await self.claim(of_entry)
        permission = await self.ledger.permit_call(claim, group="enrich", value_before=None)
        if permission.verdict != "go":
            raise AssertionError(permission.verdict)
        return claim

    async def postpone(self, claim: Claim, **options: object) -> bool:
        then = Postponement(**{"reason": "because", **options})  # type: ignore[arg-type]  # passed on as they are
        return await self.ledger.postpone(claim.entry, then, fence=claim.fence)

    async def settle(self, claim: Claim, state: State = State.FILLED, **options: object) -> bool:
        return await self.ledger.settle(claim, Settlement(state=state, **options))  # type: ignore[arg-type]  # as they are

    async def finished(self, state: State = State.FILLED, **options: object) -> Entry:
        """One entry that has been called for and has ended."""
        entry = await self.plan(**options)
        await self.redis.delete(jobs.scheduled_key(entry.queue), jobs.queue_key(entry.queue))
        await self.settle(await self.calling(entry.id), state)
        return await self.entry(entry.id)

    async def let_lease_run_out(self, of_entry: str) -> None:
        """As if its worker had been silent, or its queue had not moved, for long."""
        await self.redis.zadd(keys.ACTIVE, {of_entry: LONG_AGO_MS}, xx=True)

    async def score(self, of_entry: str) -> float | None:
        return await self.redis.zscore(keys.ACTIVE, of_entry)

    async def now_ms(self) -> int:
        seconds, microseconds = await self.redis.time()
        return seconds * 1000 + microseconds // 1000

    async def queued(self, queue: str = jobs.LIVE_QUEUE) -> list[str]:
        return [one.decode() for one in await self.redis.lrange(jobs.queue_key(queue), 0, -1)]

    async def scheduled(self, queue: str = jobs.LIVE_QUEUE) -> dict[str, float]:
        found = await self.redis.zrange(jobs.scheduled_key(queue), 0, -1, withscores=True)
        return {job_id.decode(): score for job_id, score in found}

    async def counts(self) -> dict[State, int]:
        """The states that have entries."""
        return {state: number for state, number in (await self.ledger.counts()).items() if number}
