"""Accepting an event: claim and enqueue in one step, and many events in one round trip.

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
from redis.exceptions import NoScriptError, RedisError

from service import jobs, keys
from service.costs import price_list
from service.enrichment import ENTRY_VERSION, RETENTION_SECONDS, entry_id, new_job_id
from service.metrics_catalogue import PLANNED
from service.replicas import TooFewReplicasError, are_enough, ask_replicas
from service.rules import Action, Priority
from service.scripts import script_text
from service.tracing import OFF

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio import Redis

    from service.event import Event
    from service.meter import Meter
    from service.planning import PlannedEnrichment
    from service.rules import Burst
    from service.tracing import Tracing

GRACE_MS = 10 * 60 * 1000
"""How long after it is due a queued entry may stay untouched before the sweeper looks at its job."""

UNSURE_MS = 20 * 60 * 1000
"""How long after a complete loss of Redis a call from before may be under way; no rule's may take so long."""

MOST_IN_ONE_TRIP = 64
"""Events in one round trip: few enough that Redis serves others in between."""


class StoreUnavailableError(Exception):
    """Redis could not take it: nothing was accepted, and the sender must try again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
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
    keys: list[str]
    args: list[Any]
    answer: asyncio.Future[list[bytes]]


class Accepter:
    """Writes plans to Redis. One for a process; safe for any number of concurrent requests.

    Args:
        redis: an asyncio client.
        zone: where the price list's days begin.
        clock: Unix seconds, for those days only.
        wait_replicas: how many replicas must have what was written before it counts as accepted.
        meter: counts what came of each plan; None where nobody counts.
        tracing: what executions of the plans become part of.
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
    ) -> None:
        self._meter = meter
        self._tracing = tracing
        self._redis = redis
        self._wait_replicas = wait_replicas
        self._zone = zone
        self._clock = clock
        self._template = jobs.job_template(redis)
        self._script = script_text("accept")
        self._sha: str | None = None
        self._waiting: list[_Waiting] = []
        self._flusher: asyncio.Task[None] | None = None

    async def accept(
        self,
        event: Event,
        enrichments: Sequence[PlannedEnrichment],
        *,
        bulk: bool = False,
        burst: Burst | None = None,
    ) -> list[Accepted]:
        """Make an event's enrichments durable: claimed in the ledger and enqueued, or found there already.

        Args:
            event: what planned them.
            enrichments: at least one.
            bulk: put them all behind live work, whatever their rules say.
            burst: the burst guard, or None for none.

        Raises:
            StoreUnavailableError: Redis did not confirm. Trying again is safe.
        """
        with self._tracing.step("accept") as step:
            step.note({"event.id": event.id, "event.enrichments": len(enrichments)})
            return await self._accept(event, enrichments, bulk=bulk, burst=burst, trace=step.context)

    async def _accept(
        self,
        event: Event,
        enrichments: Sequence[PlannedEnrichment],
        *,
        bulk: bool,
        burst: Burst | None,
        trace: str,
    ) -> list[Accepted]:
        ids = [
            entry_id(organization_id=event.organization_id, object_id=item.object_id, field_id=item.field_id)
            for item in enrichments
        ]
        job_ids = [new_job_id(one, version=ENTRY_VERSION) for one in ids]
        plan = {
            "event": event.id,
            "action": event.action,
            "began_ms": _began_ms(event),
            "unsure_ms": UNSURE_MS,
            "stamp": event.date_updated,
            "iso": jobs.stamp(),
            "org": event.organization_id,
            "ttl": RETENTION_SECONDS,
            "grace_ms": GRACE_MS,
            "live": jobs.LIVE_QUEUE,
            "bulk": jobs.BULK_QUEUE,
            "version": ENTRY_VERSION,
            **({} if burst is None else {"burst": _guard(burst)}),
            **({"trace": trace} if trace else {}),
            "items": [
                {
                    "id": one,
                    "job": job_id,
                    "rule": item.rule,
                    "type": item.object_type,
                    "object": item.object_id,
                    "lead": item.lead_id or "",
                    "field": item.field_id,
                    "name": item.field_name,
                    "mode": item.mode,
                    "delay_ms": round(item.settle_seconds * 1000),
                    "bulk": bulk or item.priority is Priority.LOW,
                    "front": item.priority is Priority.HIGH,
                    "reopens": item.reopens,
                    "judged": item.judged,
                }
                for one, job_id, item in zip(ids, job_ids, enrichments, strict=True)
            ],
        }
        script_keys = [
            keys.COUNTS,
            keys.ACTIVE,
            keys.HISTORY,
            keys.event(event.id),
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
        ]
        for one, job_id, item in zip(ids, job_ids, enrichments, strict=True):
            script_keys += [keys.entry(one), jobs.job_key(job_id), keys.object_entries(item.object_id)]
        answers = await self._share_a_trip(script_keys, [msgspec.json.encode(plan), *self._template])
        accepted = [
            Accepted(rule=item.rule, enrichment=one, result=answer.decode())
            for one, item, answer in zip(ids, enrichments, answers, strict=True)
        ]
        if self._meter is not None:
            for done in accepted:
                self._meter.count(PLANNED, rule=done.rule, result=done.result)
        return accepted

    async def _share_a_trip(self, script_keys: list[str], args: list[Any]) -> list[bytes]:
        waiting = _Waiting(script_keys, args, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        return await waiting.answer

    async def _flush(self) -> None:
        while self._waiting:
            # whoever was answered already, because Redis hung for too long, will deliver again
            self._waiting = [one for one in self._waiting if not one.answer.done()]
            batch, self._waiting = self._waiting[:MOST_IN_ONE_TRIP], self._waiting[MOST_IN_ONE_TRIP:]
            try:
                answers = await self._send(batch)
            except Exception as error:  # noqa: BLE001  those who wait must hear of it, whatever it is
                answers = [error] * len(batch)
            for one, answer in zip(batch, answers, strict=True):
                if one.answer.done():
                    continue
                if isinstance(answer, (RedisError, OSError)):
                    refusal = StoreUnavailableError(type(answer).__name__)
                    refusal.__cause__ = answer
                    one.answer.set_exception(refusal)
                elif isinstance(answer, Exception):
                    one.answer.set_exception(answer)
                else:
                    one.answer.set_result(answer)

    async def _send(self, batch: list[_Waiting]) -> list[Any]:
        answers = await self._pipeline(batch)
        missed = [index for index, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if missed:
            # a restarted or failed-over Redis has forgotten the script
            self._sha = None
            again = await self._pipeline([batch[index] for index in missed])
            for index, answer in zip(missed, again, strict=True):
                answers[index] = answer
        return answers

    async def _pipeline(self, batch: list[_Waiting]) -> list[Any]:
        if self._sha is None:
            self._sha = await self._redis.script_load(self._script)
        async with self._redis.pipeline(transaction=False) as pipeline:
            for one in batch:
                pipeline.evalsha(self._sha, len(one.keys), *one.keys, *one.args)
            if self._wait_replicas:
                ask_replicas(pipeline, self._wait_replicas)
            answers = await pipeline.execute(raise_on_error=False)
        return await self._confirmed(answers) if self._wait_replicas else answers

    async def _confirmed(self, answers: list[Any]) -> list[Any]:
        """The answers, refused where too few replicas have what they tell of."""
        *told, _, have_it = answers
        if await are_enough(self._redis, wanted=self._wait_replicas, have_it=have_it):
            return told
        return [one if isinstance(one, Exception) else TooFewReplicasError() for one in told]


def _began_ms(event: Event) -> int:
    """Before when nobody can have called for the record, Unix milliseconds; 0 where that is not known."""
    if event.action != Action.CREATED:
        return 0
    try:
        moment = dt.datetime.fromisoformat(event.date_created)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
        return max(0, round(moment.timestamp() * 1000))
    except (ValueError, OverflowError):
        return 0


def _guard(burst: Burst) -> dict[str, int]:
    return {"most": burst.most, "within_ms": round(burst.within_seconds * 1000)}
