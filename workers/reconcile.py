"""Close's event log as the second source: events whose delivery never arrived are planned from there.

Deliveries can be lost: a subscription may be paused, and Close then clears its queue; an address may be
wrong for days. So the log is walked (`workers.log_walk`) and every event in it is planned as if it had just
been delivered. An event that was planned before is found in the ledger and changes nothing.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from service import keys
from service.enrichment import FINAL_STATES, State, entry_id
from service.planning import Plan
from service.redis_text import text
from service.rules import Action
from workers.log_report import Findings, PairReport, Report
from workers.log_walk import (
    HISTORY,
    DeadCursor,
    Page,
    TooLong,
    Walk,
    close_time,
    pairs_of,
    parsed_time,
    window_start,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from redis.asyncio import Redis
    from structlog.typing import FilteringBoundLogger

    from service.accept import Accepter
    from service.event import Event
    from service.knowledge import Knowledge
    from service.planning import PlannedEnrichment
    from workers.log_reader import LogReader
    from workers.log_walk import Pair

MISSED = frozenset({"planned", "reopened", "again", "held"})
"""What accepting an enrichment comes to when it had not been planned before (see accept.lua)."""


class Reconciler:
    """Walks the event log and plans what is missing.

    Args:
        redis: where the marks are.
        reader: reads the log.
        accepter: writes plans.
        knowledge: what is known at the moment.
        own_api_key_id: marks changes that we made ourselves.
        now_ms: Unix milliseconds.
        log: one warning where events were missed, without values.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        reader: LogReader,
        accepter: Accepter,
        knowledge: Callable[[], Knowledge],
        own_api_key_id: str | None,
        now_ms: Callable[[], int],
        log: FilteringBoundLogger,
    ) -> None:
        self._redis = redis
        self._reader = reader
        self._accepter = accepter
        self._knowledge = knowledge
        self._own_api_key_id = own_api_key_id
        self._now_ms = now_ms
        self._log = log

    async def catch_up(self, *, leave_seconds: float) -> Report:
        """Walk each kind of event from its mark on, and move the marks of those that were drained.

        A kind without a mark is walked for the last 15 minutes, and none for more than Close's 30 days.

        Args:
            leave_seconds: younger events are left alone: their deliveries may be on their way.

        Raises:
            redis.RedisError, StoreUnavailableError: Redis is away; the marks moved so far are right.
        """
        reports = []
        remembers_since = await self._redis.get(keys.SINCE)
        for pair in pairs_of(self._knowledge().rulebook.enabled):
            now = self._now()
            mark_key = keys.log_mark(pair.object_type, pair.action)
            since = window_start(_mark(await self._redis.get(mark_key)), now=now)
            walk = Walk(since=since, until=now - dt.timedelta(seconds=leave_seconds))
            report, walk = await self._drain(pair, walk, dry_run=False)
            if await self._redis.get(keys.SINCE) != remembers_since:
                # what this walk has left of an older window would never be looked at again
                report = replace(report, problem="Redis lost everything meanwhile")
            elif walk.drained:
                await self._redis.set(mark_key, close_time(walk.mark()))
            reports.append(report)
        return self._told(Report(pairs=tuple(reports)))

    async def look_back(self, *, seconds: float, dry_run: bool) -> Report:
        """Walk each kind of event from so long ago until now. No mark is read or moved.

        Args:
            seconds: how long ago; more than Close's 30 days is 30 days.
            dry_run: only find out what would be planned; the burst guard is not asked.

        Raises:
            redis.RedisError, StoreUnavailableError: Redis is away.
        """
        since = self._now() - min(HISTORY, dt.timedelta(seconds=seconds))
        reports = [
            (await self._drain(pair, Walk(since=since), dry_run=dry_run))[0]
            for pair in pairs_of(self._knowledge().rulebook.enabled)
        ]
        report = Report(pairs=tuple(reports))
        return report if dry_run else self._told(report)

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._now_ms() / 1000, dt.UTC)

    def _told(self, report: Report) -> Report:
        for one in report.pairs:
            if one.problem is not None:
                self._log.warning(
                    "the event log could not be walked to its end", type=str(one.pair), reason=one.problem
                )
        total = report.total
        if total.missed:
            self._log.warning(
                "events were missed and are planned now",
                missed=total.missed,
                planned=total.planned,
                held=total.held,
                events=total.events,
            )
        else:
            self._log.debug("nothing was missed", events=total.events, matched=total.matched)
        return report

    async def _drain(self, pair: Pair, walk: Walk, *, dry_run: bool) -> tuple[PairReport, Walk]:
        """Walk one window, page by page, each planned before the next is read."""
        counts: Counter[str] = Counter()
        covered: set[str] = set()
        problem: str | None = None
        while not walk.drained:
            reading = await self._reader.read(pair, walk)
            if isinstance(reading, Page):
                counts["unreadable"] += self._unreadable(pair, reading.unreadable)
                counts.update(await self._plan_page(walk.to_handle(reading), covered, dry_run=dry_run))
                walk = walk.after(reading)
                continue
            onwards: Walk | None = None
            if isinstance(reading, DeadCursor):
                onwards, problem = walk.restarted(), "Close forgets its cursors too soon"
            elif isinstance(reading, TooLong):
                onwards, problem = walk.narrowed(), "a single event is too long to be read"
            else:
                problem = reading.reason
            if onwards is None:
                break
            walk, problem = onwards, None
        findings = Findings(**counts)
        return PairReport(pair=pair, since=walk.since, findings=findings, problem=problem), walk

    def _unreadable(self, pair: Pair, reasons: Sequence[str]) -> int:
        for reason in reasons:
            self._log.warning("an event of the log cannot be read", type=str(pair), reason=reason)
        return len(reasons)

    async def _plan_page(self, events: Iterable[Event], covered: set[str], *, dry_run: bool) -> Counter[str]:
        """Plan a page's events, newest first, in a few shared round trips.

        Args:
            events: of the page.
            covered: enrichments that an event which came later has planned in this walk. Whoever looks at
                the record for that one sees what the earlier event did as well. Added to.
            dry_run: plan nothing.
        """
        counts: Counter[str] = Counter()
        wanted: list[tuple[Event, list[PlannedEnrichment]]] = []
        for event in events:
            counts["events"] += 1
            enrichments = self._wanted(event, counts)
            if enrichments:
                counts["matched"] += 1
                new = [one for one in enrichments if self._first(event, one, covered)]
                if new:
                    wanted.append((event, new))
        accept = self._would_accept if dry_run else self._accept
        answers = await asyncio.gather(*(accept(event, enrichments) for event, enrichments in wanted))
        for results in answers:
            missed = [one for one in results if one in MISSED]
            counts["missed"] += bool(missed)
            counts["planned"] += len(missed)
            counts["held"] += missed.count("held")
        return counts

    def _wanted(self, event: Event, counts: Counter[str]) -> Sequence[PlannedEnrichment]:
        """What the rules make of an event, as the receiver would plan it."""
        try:
            planned = self._knowledge().plan(event, own_api_key_id=self._own_api_key_id)
        except Exception:  # noqa: BLE001  one event that trips us must not hide all the others
            self._log.exception("an event of the log cannot be planned", event_id=event.id)
            counts["unreadable"] += 1
            return ()
        return planned.enrichments if isinstance(planned, Plan) else ()

    def _first(self, event: Event, enrichment: PlannedEnrichment, covered: set[str]) -> bool:
        if event.action == Action.CREATED:
            return True
        of_entry = _entry_of(event, enrichment)
        known = of_entry in covered
        covered.add(of_entry)
        return not known

    async def _accept(self, event: Event, enrichments: Sequence[PlannedEnrichment]) -> list[str]:
        budget = self._knowledge().rulebook.budget
        accepted = await self._accepter.accept(
            event, enrichments, bulk=True, burst=None if budget is None else budget.burst, saves=False
        )
        return [one.result for one in accepted]

    async def _would_accept(self, event: Event, enrichments: Sequence[PlannedEnrichment]) -> list[str]:
        """What accepting would come to, but for the burst guard; nothing is written."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.get(keys.event(event.id))
            for one in enrichments:
                pipeline.hmget(keys.entry(_entry_of(event, one)), "state", "holder", "ambiguous")
            stamp, *entries = await pipeline.execute()
        seen = stamp is not None and text(stamp) >= event.date_updated
        return [
            _would_be(
                state=None if state is None else State(text(state)),
                in_hand=bool(holder or ambiguous),
                newer=one.reopens and not seen,
            )
            for one, (state, holder, ambiguous) in zip(enrichments, entries, strict=True)
        ]


def _would_be(*, state: State | None, in_hand: bool, newer: bool) -> str:
    """What accept.lua answers for an entry in this state."""
    if state is None:
        return "planned"
    if not newer:
        return "duplicate"
    if state in FINAL_STATES:
        return "reopened"
    return "again" if in_hand else "duplicate"


def _entry_of(event: Event, enrichment: PlannedEnrichment) -> str:
    return entry_id(
        organization_id=event.organization_id,
        object_id=enrichment.object_id,
        field_id=enrichment.target.field_id,
    )


def _mark(raw: bytes | str | None) -> dt.datetime | None:
    """A mark as it was stored; what is no moment is no mark."""
    return None if raw is None else parsed_time(text(raw))
