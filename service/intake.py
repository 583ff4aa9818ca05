"""From a delivery to an answer: verify, decode, plan, accept. The web framework is `service.app`'s affair.

An answer of 2xx is given only when Redis holds all that the delivery leads to.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from redis.exceptions import RedisError

from service import keys
from service.accept import StoreUnavailableError
from service.event import Event, Unparseable, parse_event
from service.planning import Ignored, Plan, plan
from service.quarantine import quarantine
from service.signature import Refused, verify

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from redis.asyncio import Redis
    from structlog.typing import FilteringBoundLogger

    from service.accept import Accepter
    from service.knowledge import Knowledge
    from service.signature import SignatureKey

RETRY_AFTER_SECONDS = 10
BACKLOG_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP status, a small JSON body and, with a 503, when to come back."""

    status: int
    body: dict[str, Any]
    retry_after_seconds: int | None = None


UNAVAILABLE = Answer(
    status=503,
    body={"error": "not accepted: Redis is unavailable; deliver again"},
    retry_after_seconds=RETRY_AFTER_SECONDS,
)


class Intake:
    """Takes deliveries.

    Args:
        redis: where everything accepted goes.
        accepter: writes plans.
        knowledge: what is known at the moment.
        signature_keys: any of them may have signed.
        signature_max_age_seconds: refuse older signatures; None for any age.
        own_api_key_id: marks changes that we made ourselves.
        clock: Unix seconds.
        log: one line for each delivery, without values.
    """

    def __init__(
        self,
        *,
        redis: Redis,
        accepter: Accepter,
        knowledge: Callable[[], Knowledge],
        signature_keys: Sequence[SignatureKey],
        signature_max_age_seconds: float | None,
        own_api_key_id: str | None,
        clock: Callable[[], float],
        log: FilteringBoundLogger,
    ) -> None:
        self._redis = redis
        self._accepter = accepter
        self._knowledge = knowledge
        self._signature_keys = signature_keys
        self._signature_max_age_seconds = signature_max_age_seconds
        self._own_api_key_id = own_api_key_id
        self._clock = clock
        self._log = log

    async def receive(self, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> Answer:
        """Answer one delivery. Raises nothing: trouble with Redis is a 503."""
        verdict = verify(
            headers=headers,
            body=body,
            keys=self._signature_keys,
            now=self._clock(),
            max_age_seconds=self._signature_max_age_seconds,
        )
        if isinstance(verdict, Refused):
            self._log.warning("refused", reason=verdict.reason)
            return Answer(status=401, body={"error": verdict.reason})
        event = parse_event(body)
        try:
            if isinstance(event, Unparseable):
                return await self._quarantine(body, event)
            return await self._take(event, body, age_seconds=verdict.age_seconds)
        except (RedisError, StoreUnavailableError, OSError) as error:
            self._log.error("not accepted", error=type(error).__name__)
            return UNAVAILABLE

    async def _quarantine(self, body: bytes, event: Unparseable) -> Answer:
        kept_as = await quarantine(self._redis, body=body, reason=event.reason)
        self._log.warning("quarantined", reason=event.reason, kept_as=kept_as)
        return Answer(status=202, body={"status": "quarantined", "reason": event.reason, "id": kept_as})

    async def _take(self, event: Event, body: bytes, *, age_seconds: float) -> Answer:
        knowledge = self._knowledge()
        kind = f"{event.object_type}.{event.action}"
        facts: dict[str, Any] = {"event": event.id, "type": kind}
        log = self._log.bind(event_id=event.id, type=kind)
        if not knowledge.complete or knowledge.organization_id is None:
            # without the fields' ids nothing can be planned, and nothing may be lost
            await self._redis.rpush(keys.BACKLOG, body)
            log.warning("kept for planning")
            return Answer(
                status=202,
                body={
                    **facts,
                    "status": "accepted",
                    "reason": "will be planned as soon as Close's fields are known",
                },
            )
        planned = self.plan(event, knowledge)
        if isinstance(planned, Ignored):
            log.info("ignored", reason=planned.text)
            return Answer(status=200, body={**facts, "status": "ignored", "reason": planned.text})
        skipped = [{"rule": one.rule, "reason": one.reason} for one in planned.skipped]
        if not planned.enrichments:
            log.info("ignored", skipped=skipped)
            return Answer(
                status=200,
                body={**facts, "status": "ignored", "reason": "no rule wants it", "skipped": skipped},
            )
        accepted = await self._accepter.accept(event, planned.enrichments)
        results = [{"rule": one.rule, "enrichment": one.enrichment, "result": one.result} for one in accepted]
        duplicate = all(one.result == "duplicate" for one in accepted)
        status = "duplicate" if duplicate else "accepted"
        log.info(status, planned=results, skipped=skipped, age_seconds=round(age_seconds, 1))
        return Answer(status=202, body={**facts, "status": status, "planned": results, "skipped": skipped})

    def plan(self, event: Event, knowledge: Knowledge) -> Plan | Ignored:
        """What the rules make of an event."""
        return plan(
            event,
            bindings=knowledge.bindings,
            organization_id=knowledge.organization_id or "",
            own_api_key_id=self._own_api_key_id,
            schemas=knowledge.schemas,
        )

    async def work_off_backlog(self, learn: Callable[[], Awaitable[None]]) -> None:
        """Plan what came in before Close's fields were known, until cancelled.

        An event leaves the backlog after it is planned, so a stop in between plans it twice, which changes
        nothing: its fields are claimed already.
        """
        while True:
            try:
                if not await self._work_off_one(learn):
                    await asyncio.sleep(BACKLOG_PAUSE_SECONDS)
            except (RedisError, StoreUnavailableError, OSError) as error:
                self._log.warning("the backlog waits for Redis", error=type(error).__name__)
                await asyncio.sleep(BACKLOG_PAUSE_SECONDS)

    async def _work_off_one(self, learn: Callable[[], Awaitable[None]]) -> bool:
        if not self._knowledge().complete:
            await learn()
            return False
        kept = await self._redis.lindex(keys.BACKLOG, 0)
        if not isinstance(kept, bytes):
            return False
        body = kept
        event = parse_event(body)
        if isinstance(event, Event):
            await self._take(event, body, age_seconds=0.0)
        await self._redis.lrem(keys.BACKLOG, 1, cast("str", body))
        return True
