"""Filling what is there already: find the records, price them, put them behind all live work.

Close's search is walked (`workers.backfill_walk`) and each page's candidates are written down before the next
page is asked for, so that no cursor is held over anything slow and whoever is killed goes on where it was.
Once a person has agreed to the price, the candidates are planned like any event's enrichments: the ledger
claims each field once, and the worker looks at the record afresh before it asks.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from msgspec import structs

from service import keys
from service.accept import MOST_IN_ONE_TRIP
from service.enrichment import State
from service.event import Event
from service.planning import PlannedEnrichment
from service.redis_text import text
from service.rules import ObjectType, Priority
from workers.backfill_cancel import drop
from workers.backfill_match import ACTION, Judge, RuleTally, event_id, worth_again
from workers.backfill_query import fields_needed, for_object, lacking, search_body
from workers.backfill_run import Candidate, Known, Run, Search, Stage
from workers.backfill_walk import SearchEnded, SearchPage, SearchWalk, read_search
from workers.log_walk import Unread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from service.accept import Accepter
    from service.knowledge import Knowledge
    from service.ledger import Ledger
    from workers.backfill_order import Order
    from workers.backfill_run import RunStore
    from workers.close_api import CloseApi
    from workers.patient import PatientReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """A backfill cannot go on for now; nothing is lost, and it can be taken up again.

    Attributes:
        reason: in words, for people.
        run: as it stands.
    """

    reason: str
    run: Run


class Backfill:
    """One order, carried out.

    Args:
        order: what is asked for.
        knowledge: rules and fields; complete.
        api: asks Close.
        reader: of the search's endpoint group.
        ledger: what is known of each field.
        accepter: writes plans.
        store: where runs are kept.
        told: hears of each step.
    """

    def __init__(
        self,
        order: Order,
        *,
        knowledge: Knowledge,
        api: CloseApi,
        reader: PatientReader,
        ledger: Ledger,
        accepter: Accepter,
        store: RunStore,
        told: Callable[[Run], None] = lambda _run: None,
    ) -> None:
        self._order = order
        self._knowledge = knowledge
        self._api = api
        self._reader = reader
        self._ledger = ledger
        self._accepter = accepter
        self._store = store
        self._told = told

    async def take_up(self, *, now_ms: int, token: str) -> Known:
        """The run for this order that is not over yet, or a new one.

        Args:
            now_ms: Unix milliseconds; records created later are left to their events.
            token: makes a new run's id unique among those of a day.
        """
        known = await self._store.of_order(self._order.digest)
        if known is not None and not known.run.stage.over:
            return known
        since = self._order.since_second
        walk = SearchWalk(since=since, until=max(now_ms // 1000, since) + 1)
        day = dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC).date()
        return await self._store.begin(
            Run(
                id=f"{day}-{token}",
                order=self._order.digest,
                organization_id=self._knowledge.organization_id or "",
                rules=tuple(one.rule.name for one in self._order.rules),
                fields=tuple(one.field_id for one in self._order.rules),
                started_ms=now_ms,
                searches=tuple(Search(object_type=one.value, walk=walk) for one in self._order.object_types),
                limit=self._order.limit,
                tallies=(RuleTally(),) * len(self._order.rules),
            )
        )

    async def gather(self, known: Known) -> Known | Stopped:
        """Walk Close's search to its end, writing down what is to be enriched.

        Raises:
            redis.RedisError: Redis stayed away for longer than its client retries.
        """
        while known.run.stage is Stage.GATHERING:
            run = known.run
            place = next((at for at, one in enumerate(run.searches) if not one.walk.drained), None)
            if place is None or run.limit_reached:
                known = await self._written(known, replace(run, stage=Stage.PRICED))
                continue
            search = run.searches[place]
            reading = await self._search(ObjectType(search.object_type), search.walk)
            if isinstance(reading, Unread):
                return Stopped(reason=reading.reason, run=run)
            if isinstance(reading, SearchEnded):
                known = await self._written(known, _moved(run, place, search.walk.restarted()))
                continue
            if not search.walk.keeps_order(reading):
                reason = "Close's search does not keep to the order of creation: records could be missed"
                return Stopped(reason=reason, run=run)
            found, tallies = await self._candidates(run, search, reading)
            after = replace(run, tallies=tallies, unreadable=run.unreadable + reading.unreadable)
            known = await self._written(known, _moved(after, place, search.walk.after(reading)), found=found)
        return known

    async def agree(self, known: Known) -> Known:
        """Somebody agrees to the price: what was found may be planned."""
        if known.run.stage is not Stage.PRICED:
            return known
        return await self._written(known, replace(known.run, stage=Stage.PLANNING))

    async def plan(self, known: Known) -> Known:
        """Put what was found into the ledger, behind all live work.

        Raises:
            redis.RedisError, StoreUnavailableError: Redis is away; what was planned is planned.
        """
        while known.run.stage is Stage.PLANNING:
            run = known.run
            if run.planned_pages >= run.pages:
                known = await self._written(known, replace(run, stage=Stage.WORKING))
                continue
            page = await self._store.page(run.id, run.planned_pages)
            await self._accept(run, page)
            known = await self._written(known, replace(run, planned_pages=run.planned_pages + 1))
            if known.run.stage is Stage.CANCELLED:
                # somebody cancelled it while these were being planned
                await drop(self._ledger, known.run, page)
        return known

    async def _written(self, known: Known, after: Run, *, found: Sequence[Candidate] = ()) -> Known:
        """The run once a step is written down, or as whoever was faster has left it."""
        written = await self._store.step(known, after, found=found) or await self._store.as_it_is(known)
        self._told(written.run)
        return written

    async def _search(self, object_type: ObjectType, walk: SearchWalk) -> SearchPage | SearchEnded | Unread:
        order = self._order
        rules = [one for one in order.rules if one.rule.object_type is object_type]
        conditions = [one.rule.when for one in rules if one.rule.when is not None]
        if order.where is not None:
            conditions.append(order.where)
        schema = self._knowledge.schemas[object_type]
        asked = lacking(rules)
        if order.query is not None:
            asked.append(dict(for_object(order.query, object_type)))
        body = search_body(
            walk,
            object_type=object_type,
            conditions=asked,
            fields=fields_needed(object_type, rules, conditions, schema=schema),
        )
        return await self._reader.read(
            partial(self._api.post_search, body=body),
            lambda result: read_search(result, with_cursor=walk.cursor is not None),
        )

    async def _candidates(
        self, run: Run, search: Search, page: SearchPage
    ) -> tuple[list[Candidate], tuple[RuleTally, ...]]:
        """What of a page is to be enriched, and the run's tallies with it."""
        object_type = ObjectType(search.object_type)
        rules = enumerate(self._order.rules)
        judge = Judge(
            run_id=run.id,
            organization_id=run.organization_id,
            rules=tuple((at, one) for at, one in rules if one.rule.object_type is object_type),
            where=self._order.where,
            schema=self._knowledge.schema(object_type),
        )
        tallies = list(run.tallies)
        matched: list[tuple[Candidate, bool]] = []
        for record in search.walk.new(page):
            lead_id = record.data.get("lead_id")
            for match in judge.matches(record.data, tallies=tallies):
                candidate = Candidate(
                    object_id=record.id,
                    lead_id=lead_id if isinstance(lead_id, str) and lead_id != record.id else "",
                    rule=match.rule,
                )
                matched.append((candidate, match.later))
        left = None if run.limit is None else run.limit - run.total.wanted
        found: list[Candidate] = []
        begun: set[tuple[str, str]] = set()
        entries = await self._entries(run, [candidate for candidate, _ in matched])
        for (candidate, later), (state, calls) in zip(matched, entries, strict=True):
            at, object_id = candidate.rule, candidate.object_id
            rule = self._order.rules[at].rule
            if later and begun.isdisjoint((object_id, name) for name in rule.after):
                # what its condition waits for is known already, and does not meet it
                tallies[at] = tallies[at].plus(RuleTally(matched=-1))
            elif state is not None and not worth_again(state, mode=rule.mode):
                tallies[at] = tallies[at].plus(RuleTally(known=1))
            elif left is None or len(found) < left:
                begun.add((object_id, rule.name))
                found.append(candidate if state is None else replace(candidate, calls_before=calls))
                tallies[at] = tallies[at].plus(RuleTally(wanted=1, later=int(later)))
        return found, tuple(tallies)

    async def _entries(self, run: Run, candidates: Sequence[Candidate]) -> list[tuple[State | None, int]]:
        """How each candidate's ledger entry stands, if there is one, and how many calls it has had."""
        async with self._ledger.redis.pipeline(transaction=False) as pipeline:
            for one in candidates:
                pipeline.hmget(keys.entry(run.entry_of(one)), ["state", "calls"])
            rows = await pipeline.execute()
        return [(None if state is None else State(text(state)), int(calls or 0)) for state, calls in rows]

    async def _accept(self, run: Run, page: Sequence[Candidate]) -> None:
        """Plan a page of candidates, in its order: a repetition plans nothing again."""
        by_record: dict[str, list[Candidate]] = {}
        for one in page:
            by_record.setdefault(one.object_id, []).append(one)
        overtaken = await self._overtaken(run, page)
        left = [
            (number, [one for one in candidates if one not in overtaken])
            for number, candidates in enumerate(by_record.values())
        ]
        wanted = [(number, candidates) for number, candidates in left if candidates]
        # none goes before those ahead of it are there: their stamps are lower, and would count as planned
        for at in range(0, len(wanted), MOST_IN_ONE_TRIP):
            await asyncio.gather(
                *(
                    self._accepter.accept(
                        self._event(run, candidates[0], number=number),
                        [self._planned(one) for one in candidates],
                        bulk=True,
                    )
                    for number, candidates in wanted[at : at + MOST_IN_ONE_TRIP]
                )
            )

    async def _overtaken(self, run: Run, page: Sequence[Candidate]) -> frozenset[Candidate]:
        """Those that were to begin anew and that an event has had asked about since they were found."""
        known = [one for one in page if one.calls_before is not None]
        entries = await self._entries(run, known)
        return frozenset(
            one
            for one, (state, _) in zip(known, entries, strict=True)
            if state is not None and not worth_again(state, mode=self._order.rules[one.rule].rule.mode)
        )

    def _event(self, run: Run, candidate: Candidate, *, number: int) -> Event:
        """What stands for the backfill of a record in the ledger.

        Its stamp grows from record to record: what has been planned up to a stamp is never begun anew.
        """
        return Event(
            id=event_id(run.id),
            organization_id=run.organization_id,
            object_type=self._order.rules[candidate.rule].rule.object_type.value,
            object_id=candidate.object_id,
            lead_id=candidate.lead_id or candidate.object_id,
            action=ACTION,
            date_created="",
            date_updated=f"{run.planned_pages:08d}.{number:04d}",
        )

    def _planned(self, candidate: Candidate) -> PlannedEnrichment:
        bound = self._order.rules[candidate.rule]
        return PlannedEnrichment(
            # nobody has just typed it in
            target=structs.replace(bound.target, settle_seconds=0.0, priority=Priority.LOW),
            object_id=candidate.object_id,
            lead_id=candidate.lead_id or candidate.object_id,
            judged=bound.rule.when is None,
            reopens=candidate.calls_before is not None,
        )


def _moved(run: Run, place: int, walk: SearchWalk) -> Run:
    """The run with one of its walks moved on."""
    searches = list(run.searches)
    searches[place] = replace(searches[place], walk=walk)
    return replace(run, searches=tuple(searches))
