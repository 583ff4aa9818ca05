"""A backfill as Redis remembers it: what was asked for, how far it has come, what it has found.

Every step is written with what it has found in one go, and only where nobody took it before. So whoever is
killed goes on where it was, and two who run the same command do no harm to each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from service import keys
from service.enrichment import RETENTION_SECONDS, entry_id
from service.redis_text import text, texts
from service.scripts import Script, script_text
from workers.backfill_match import RuleTally
from workers.backfill_walk import SearchWalk  # noqa: TC001 - msgspec resolves annotations at run time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

PRICED_SECONDS = 3600
"""How long what was found is kept until somebody agrees to the price: after that it is looked for anew."""

MOST_RUNS = 100


class Stage(StrEnum):
    """How far a backfill is."""

    GATHERING = "gathering"
    """Close's search is being walked."""
    PRICED = "priced"
    """All is found; nobody has agreed to the price yet."""
    PLANNING = "planning"
    """Agreed to; what was found is being written into the ledger."""
    WORKING = "working"
    """All is in the ledger; workers are at it."""
    ENDED = "ended"
    CANCELLED = "cancelled"

    @property
    def over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self in (Stage.ENDED, Stage.CANCELLED)

    @property
    def agreed(self) -> bool:
        """Whether somebody has agreed to its price."""
        return self not in (Stage.GATHERING, Stage.PRICED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """The walk through one object type's records."""

    object_type: str
    walk: SearchWalk


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A field of a record to enrich.

    Attributes:
        object_id: the record.
        lead_id: its lead; "" for a lead itself.
        rule: the rule's place in the run.
        calls_before: where the ledger knows a finished enrichment that is to begin anew, how many calls that
            had; None where it knows none.
    """

    object_id: str
    lead_id: str
    rule: int
    calls_before: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One backfill.

    Attributes:
        id: names it for people: `2026-11-23-k3f9`.
        order: the digest of its arguments.
        organization_id: whose records they are.
        rules: names of its rules; other lists are in this order.
        fields: the custom fields that they fill, by id.
        started_ms: Unix milliseconds.
        searches: the object types' walks, in the order in which they are done.
        limit: most enrichments, or None.
        stage: how far it is.
        tallies: what was found for each rule.
        unreadable: records that had no id or no date of creation.
        pages: elements of the list of what was found.
        planned_pages: those of them that are in the ledger.
        outcomes: when it is over, how many ended in which state.
        calls: when it is over, calls that may have been charged.
        elsewhere: when it is over, enrichments that somebody else had planned before it came to them.
    """

    id: str
    order: str
    organization_id: str
    rules: tuple[str, ...]
    fields: tuple[str, ...]
    started_ms: int
    searches: tuple[Search, ...]
    limit: int | None = None
    stage: Stage = Stage.GATHERING
    tallies: tuple[RuleTally, ...] = ()
    unreadable: int = 0
    pages: int = 0
    planned_pages: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    calls: int = 0
    elsewhere: int = 0

    def entry_of(self, candidate: Candidate) -> str:
        """The ledger entry of a candidate of this run."""
        return entry_id(
            organization_id=self.organization_id,
            object_id=candidate.object_id,
            field_id=self.fields[candidate.rule],
        )

    @property
    def total(self) -> RuleTally:
        """What was found for all rules."""
        found = RuleTally()
        for one in self.tallies:
            found = found.plus(one)
        return found

    @property
    def limit_reached(self) -> bool:
        """Whether as much was found as is wanted."""
        return self.limit is not None and self.total.wanted >= self.limit

    @property
    def skipped_seconds(self) -> tuple[int, ...]:
        """Seconds in which more records were created than Close's search shows."""
        return tuple(second for one in self.searches for second in one.walk.skipped)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A run as it was read: `revision` must be the same when its next step is written."""

    run: Run
    revision: int


_RUN = msgspec.json.Decoder(Run)
_PAGE = msgspec.json.Decoder(list[tuple[str, str, int, int | None]])


class RunStore:
    """The backfills of one Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._step = Script(redis, script_text("backfill_step", package="workers"))

    async def begin(self, run: Run) -> Known:
        """Write a new run down.

        Raises:
            RuntimeError: Redis has lost it at once.
        """
        # where the answer was lost and the step asked for once more, it is there already
        known = await self.step(Known(run=run, revision=0), run) or await self.read(run.id)
        if known is None:
            raise RuntimeError("Redis does not have what was just written")
        return known

    async def step(
        self, known: Known, run: Run, *, found: Sequence[Candidate] = (), forget: bool = False
    ) -> Known | None:
        """Write a step down; None where another process took it, or another one, first.

        Args:
            known: the run that the step was taken from.
            run: the run afterwards; what it has found is counted here.
            found: more to enrich.
            forget: what was found is needed no more.
        """
        page = [(one.object_id, one.lead_id, one.rule, one.calls_before) for one in found]
        after = replace(run, pages=run.pages + 1) if page else run
        revision = await self._step(
            keys=[
                keys.backfill(run.id),
                keys.backfill_found(run.id),
                keys.backfill_of(run.order),
                keys.BACKFILLS,
            ],
            args=[
                known.revision,
                msgspec.json.encode(after),
                RETENTION_SECONDS if run.stage.agreed else PRICED_SECONDS,
                run.id,
                run.started_ms,
                MOST_RUNS,
                msgspec.json.encode(page) if page else b"",
                int(forget),
            ],
        )
        return Known(run=after, revision=int(revision)) if revision else None

    async def read(self, run_id: str) -> Known | None:
        """A run, or None where there is none of that id any more."""
        raw = await self._redis.hmget(keys.backfill(run_id), ["revision", "run"])
        revision, run = raw
        if revision is None or run is None:
            return None
        return Known(run=_RUN.decode(run), revision=int(revision))

    async def of_order(self, order: str) -> Known | None:
        """The newest run with these arguments, or None."""
        run_id = await self._redis.get(keys.backfill_of(order))
        return None if run_id is None else await self.read(text(run_id))

    async def newest(self) -> list[Known]:
        """The runs that are remembered, newest first."""
        ids = texts(await self._redis.zrange(keys.BACKFILLS, 0, -1, desc=True))
        found = [(one, await self.read(one)) for one in ids]
        gone = [one for one, known in found if known is None]
        if gone:
            await self._redis.zrem(keys.BACKFILLS, *gone)
        return [known for _, known in found if known is not None]

    async def as_it_is(self, known: Known) -> Known:
        """A run as it stands now, where another process may have taken it further.

        Raises:
            RuntimeError: it has expired, or Redis has lost it.
        """
        current = await self.read(known.run.id)
        if current is None:
            raise RuntimeError(f"backfill {known.run.id} is no longer in Redis")
        return current

    async def page(self, run_id: str, number: int) -> list[Candidate]:
        """An element of what a run has found, from 0; empty where there is none."""
        raw = await self._redis.lindex(keys.backfill_found(run_id), number)
        if raw is None:
            return []
        return [
            Candidate(object_id=object_id, lead_id=lead_id, rule=rule, calls_before=calls_before)
            for object_id, lead_id, rule, calls_before in _PAGE.decode(raw)
        ]
