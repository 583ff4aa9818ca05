"""Accepting events: claim and enqueue in one step, and many events in one round trip.

A 2xx is answered only after Redis has answered. While one round trip is under way, the next events gather and
share the one after it (group commit), so a burst costs round trips by time, not by events.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from redis.exceptions import RedisError, ResponseError

from service import jobs, keys
from service.claims import REFUSED, RESULTS, Claims
from service.costs import price_list
from service.enrichment import ENTRY_VERSION, RETENTION_SECONDS, entry_id
from service.metrics_catalogue import PLANNED
from service.patience import Patience
from service.replicas import confirm
from service.scripts import Script, script_text
from service.tracing import OFF

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio import Redis

    from service.claims import Claim, Kind
    from service.event import Event
    from service.meter import Meter
    from service.planning import PlannedEnrichment
    from service.rules import Burst
    from service.tracing import Tracing

GRACE_MS = 10 * 60 * 1000
"""How long after it is due a queued entry may stay untouched before the sweeper looks at its job."""

UNSURE_MS = 20 * 60 * 1000
"""How long after a complete loss of Redis a call from before may be under way; no rule's may take so long."""

MOST_IN_ONE_TRIP = 24
"""Events in one round trip: with many more, receiver and Redis wait for each other."""
MOST_ITEMS_IN_ONE_TRIP = 256
"""Their enrichments: few enough that Redis serves others in between. A single event may have more."""


class StoreUnavailableError(Exception):
    """Redis could not take it: nothing was accepted, and the sender must try again."""


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one planned enrichment.

    Attributes:
        rule: the rule that planned it.
        enrichment: its entry id.
        result: `planned`, `held`, `reopened`, `again` or `duplicate` (see accept.lua).
    """

    rule: str
    enrichment: str
    result: str


@dataclass(slots=True)
class _Waiting:
    """A claim on its way to Redis, and who waits for a letter for each of its items."""

    claim: Claim
    answer: asyncio.Future[str]


class Accepter:
    """Writes plans to Redis. One for an event loop; safe for any number of concurrent requests.

    Args:
        redis: an asyncio client.
        zone: where the price list's days begin.
        clock: Unix seconds, for those days only.
        wait_replicas: how many replicas must have what was written before it counts as accepted.
        meter: counts what came of each plan; None where nobody counts.
        tracing: what executions of the plans become part of.
        patience_seconds: Redis is away if an event takes longer; None to leave that to the client.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        zone: dt.tzinfo = dt.UTC,
        clock: Callable[[], float] = time.time,
        wait_replicas: int = 0,
        meter: Meter | None = None,
        tracing: Tracing = OFF,
        patience_seconds: float | None = None,
    ) -> None:
        self._patience = None if patience_seconds is None else Patience(patience_seconds, _impatient)
        self._meter = meter
        self._tracing = tracing
        self._redis = redis
        self._wait_replicas = wait_replicas
        self._zone = zone
        self._clock = clock
        self._template = jobs.job_template(redis)
        self._script = Script(redis, script_text("accept"))
        self._claims = Claims()
        self._waiting: list[_Waiting] = []
        self._flusher: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def accept(
        self,
        event: Event,
        enrichments: Sequence[PlannedEnrichment],
        *,
        bulk: bool = False,
        burst: Burst | None = None,
        saves: bool = True,
    ) -> list[Accepted]:
        """Make an event's enrichments durable: claimed in the ledger and enqueued, or found there already.

        Args:
            event: what planned them.
            enrichments: at least one.
            bulk: put them all behind live work, whatever their rules say.
            burst: the burst guard, or None for none.
            saves: whether the price list counts what is there already as saved. It is not where we only look
                again at what has been delivered.

        Raises:
            StoreUnavailableError: Redis did not confirm. Trying again is safe.
        """
        with self._tracing.step("accept") as step:
            if step.context:
                step.note({"event.id": event.id, "event.enrichments": len(enrichments)})
            ids = [
                entry_id(
                    organization_id=event.organization_id,
                    object_id=item.object_id,
                    field_id=item.target.field_id,
                )
                for item in enrichments
            ]
            claim = self._claims.claim(
                event, enrichments, ids, bulk=bulk, burst=burst, trace=step.context, saves=saves
            )
            letters = await self._share_a_trip(claim)
        accepted = [
            Accepted(rule=item.target.rule, enrichment=one, result=RESULTS[letter])
            for one, item, letter in zip(ids, enrichments, letters, strict=True)
        ]
        if self._meter is not None:
            for done in accepted:
                self._meter.count(PLANNED, rule=done.rule, result=done.result)
        return accepted

    def _share_a_trip(self, claim: Claim) -> asyncio.Future[str]:
        """A letter for each of the claim's items, or `StoreUnavailableError`, when Redis has answered."""
        loop = self._loop
        if loop is None:
            # remembered: up to Python 3.11, each look for it costs a system call
            loop = self._loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()
        self._waiting.append(_Waiting(claim, answer))
        if self._flusher is None or self._flusher.done():
            self._flusher = loop.create_task(self._flush())
        if self._patience is not None:
            self._patience.watch(answer, loop)
        return answer

    async def _flush(self) -> None:
        while self._waiting:
            await self._fly()

    async def _fly(self) -> None:
        """Take along those whose turn it is, and tell them what came of it."""
        # whoever was answered already, because Redis hung for too long, will deliver again
        batch = self._next_batch([one for one in self._waiting if not one.answer.done()])
        if not batch:
            return
        try:
            answers: list[Any] = await self._send(batch)
        except Exception as error:  # noqa: BLE001  those who wait must hear of it, whatever it is
            answers = [error] * len(batch)
        for one, answer in zip(batch, answers, strict=True):
            if one.answer.done():
                continue
            if isinstance(answer, (RedisError, OSError)):
                one.answer.set_exception(_refusal(answer))
            elif isinstance(answer, Exception):
                one.answer.set_exception(answer)
            else:
                one.answer.set_result(answer)

    def _next_batch(self, waiting: list[_Waiting]) -> list[_Waiting]:
        """Those whose turn it is; the others go on waiting."""
        items = 0
        for many, one in enumerate(waiting):
            items += one.claim.items
            if many == MOST_IN_ONE_TRIP or (many and items > MOST_ITEMS_IN_ONE_TRIP):
                self._waiting = waiting[many:]
                return waiting[:many]
        self._waiting = []
        return waiting

    async def _send(self, batch: list[_Waiting]) -> list[str | Exception]:
        """Write some events down; for each what became of it, or why Redis refused it.

        Raises:
            redis.RedisError, OSError: none is known to be durable.
        """
        kinds: dict[int, Kind] = {}
        for one in batch:
            kinds.update(one.claim.kinds)
        shared = {
            "iso": jobs.stamp(),
            "ttl": RETENTION_SECONDS,
            "grace_ms": GRACE_MS,
            "unsure_ms": UNSURE_MS,
            "live": jobs.LIVE_QUEUE,
            "bulk": jobs.BULK_QUEUE,
            "version": ENTRY_VERSION,
            "template": self._template,
            "kinds": [(number, *kind) for number, kind in kinds.items()],
        }
        answers = await self._script(
            keys=[
                keys.COUNTS,
                keys.ACTIVE,
                keys.HISTORY,
                jobs.ALL_QUEUES_KEY,
                jobs.queue_key(jobs.LIVE_QUEUE),
                jobs.scheduled_key(jobs.LIVE_QUEUE),
                jobs.queue_key(jobs.BULK_QUEUE),
                jobs.scheduled_key(jobs.BULK_QUEUE),
                keys.HELD,
                keys.BURST,
                price_list(self._clock(), self._zone),
                keys.ATTENTION,
                keys.SINCE,
                keys.ORGANIZATION,
                keys.entry(""),
                keys.object_entries(""),
                keys.event(""),
                jobs.job_key(""),
            ],
            args=[msgspec.msgpack.encode(shared), *(one.claim.message for one in batch)],
        )
        await confirm(self._redis, self._wait_replicas)
        return [_letters(answer.decode()) for answer in answers]


def _refusal(error: Exception) -> StoreUnavailableError:
    refusal = StoreUnavailableError(type(error).__name__)
    refusal.__cause__ = error
    return refusal


def _impatient() -> StoreUnavailableError:
    return _refusal(TimeoutError("Redis has not answered in time"))


def _letters(answer: str) -> str | ResponseError:
    """What accept.lua says of one event; an error where only this one could not be written."""
    return ResponseError(answer.removeprefix(REFUSED)) if answer.startswith(REFUSED) else answer
