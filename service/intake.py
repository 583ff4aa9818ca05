"""From a delivery to an answer: verify, decode, plan, accept. The web framework is `service.app`'s affair.

An answer of 2xx is given only when Redis holds all that the delivery leads to.
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import msgspec
from redis.exceptions import RedisError, ResponseError

from service import keys
from service.accept import StoreUnavailableError
from service.event import Unparseable, parse_event
from service.metrics_catalogue import ACCEPT_SECONDS, EVENTS
from service.planning import Ignored
from service.quarantine import quarantine
from service.replicas import confirm
from service.seldom import Seldom
from service.settings_values import WEBHOOK_PATH
from service.signature import UNKNOWN_KEY, Refused, verify
from service.tracing import NEW_TRACE, OFF

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from redis.asyncio import Redis
    from structlog.typing import FilteringBoundLogger

    from service.accept import Accepter
    from service.event import Event
    from service.knowledge import Knowledge
    from service.meter import Meter
    from service.planning import Plan
    from service.signature import SignatureKey, Verified
    from service.tracing import Step, Tracing

PATIENCE_SECONDS = 0.95
"""Redis is away if it takes longer. Close's own patience is not documented, so an answer comes soon."""

RETRY_AFTER_SECONDS = 10
BACKLOG_PAUSE_SECONDS = 1.0
MOST_REFUSALS_TOLD_PER_SECOND = 10


_RESULT_OF_STATUS = {401: "refused", 503: "unavailable"}


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An HTTP status, a small body for msgspec to write as JSON and, with a 503, when to come back."""

    status: int
    body: dict[str, Any]
    retry_after_seconds: int | None = None

    @property
    def result(self) -> str:
        """What became of the delivery, in a word, for metrics."""
        return _RESULT_OF_STATUS.get(self.status) or str(self.body["status"])


UNAVAILABLE = Answer(
    status=503,
    body={"error": "not accepted: Redis is unavailable; deliver again"},
    retry_after_seconds=RETRY_AFTER_SECONDS,
)
KEYLESS = Answer(
    status=503,
    body={"error": "not accepted: no signature key is known yet; deliver again"},
    retry_after_seconds=RETRY_AFTER_SECONDS,
)
"""It may be genuine, so it is not refused: Close delivers it again, and a worker learns the key meanwhile."""


class Intake:
    """Takes deliveries.

    Args:
        redis: where everything accepted goes.
        accepter: writes plans; it gives up on Redis after `PATIENCE_SECONDS`.
        knowledge: what is known at the moment.
        signature_keys: those in force at the moment; any of them may have signed.
        look_for_keys: asks for keys learned since, before a delivery is refused for its key.
        signature_max_age_seconds: refuse older signatures; None for any age.
        own_api_key_id: marks changes that we made ourselves.
        clock: Unix seconds.
        log: one line for each delivery, without values.
        meter: counts deliveries.
        timer: seconds that only ever grow, for how long an answer took.
        wait_replicas: how many replicas must have what is kept before it is answered 202.
        tracing: each delivery begins a trace; it never joins one that its headers name.
    """

    def __init__(
        self,
        *,
        redis: Redis,
        accepter: Accepter,
        knowledge: Callable[[], Knowledge],
        signature_keys: Callable[[], Sequence[SignatureKey]],
        look_for_keys: Callable[[], Awaitable[None]],
        signature_max_age_seconds: float | None,
        own_api_key_id: str | None,
        clock: Callable[[], float],
        log: FilteringBoundLogger,
        meter: Meter,
        timer: Callable[[], float],
        wait_replicas: int = 0,
        tracing: Tracing = OFF,
    ) -> None:
        self._redis = redis
        self._tracing = tracing
        self._wait_replicas = wait_replicas
        self._accepter = accepter
        self._knowledge = knowledge
        self._signature_keys = signature_keys
        self._look_for_keys = look_for_keys
        self._signature_max_age_seconds = signature_max_age_seconds
        self._own_api_key_id = own_api_key_id
        self._clock = clock
        # bound once: a logger that is not makes a new one for every line, even for one that is not written
        self._log = log.bind()
        self._refusals = Seldom(log, most_per_second=MOST_REFUSALS_TOLD_PER_SECOND, clock=timer)
        self._meter = meter
        self._timer = timer

    @property
    def keyed(self) -> bool:
        """Whether any signature key is known: without one, nothing can be accepted."""
        return bool(self._signature_keys())

    async def receive(self, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> Answer:
        """Answer one delivery. Raises nothing: trouble with Redis is a 503."""
        began = self._timer()
        with self._tracing.step(f"POST {WEBHOOK_PATH}", kind="server", within=NEW_TRACE) as step:
            answer = await self._answer(headers, body)
            if step.context:
                _note(step, answer)
        result = answer.result
        self._meter.count(EVENTS, result=result)
        if result != "refused":
            self._meter.observe(ACCEPT_SECONDS, self._timer() - began)
        return answer

    async def _answer(self, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> Answer:
        verdict = self._verify(headers, body)
        if verdict == UNKNOWN_KEY:
            before = self._signature_keys()
            await self._look_for_keys()
            # the same keys would only cost the same time again
            if self._signature_keys() != before:
                verdict = self._verify(headers, body)
        if verdict == UNKNOWN_KEY and not self.keyed:
            self._log.error("not accepted", error="no signature key is known yet")
            return KEYLESS
        if isinstance(verdict, Refused):
            self._refusals.warning("refused", reason=verdict.reason)
            return Answer(status=401, body={"error": verdict.reason})
        event = parse_event(body)
        noted = {"age_seconds": round(verdict.age_seconds, 1)}
        try:
            if isinstance(event, Unparseable):
                return await self._quarantine(body, event.reason)
            knowledge = self._knowledge()
            if knowledge.complete:
                return await self._process(event, body, knowledge, noted)
            return await self._keep(event, body, noted)
        except (RedisError, StoreUnavailableError, OSError) as error:
            self._log.error("not accepted", error=type(error).__name__)
            return UNAVAILABLE

    def _verify(self, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> Verified | Refused:
        return verify(
            headers=headers,
            body=body,
            keys=self._signature_keys(),
            now=self._clock(),
            max_age_seconds=self._signature_max_age_seconds,
        )

    async def _quarantine(self, body: bytes, reason: str) -> Answer:
        async with asyncio.timeout(PATIENCE_SECONDS):
            kept_as = await quarantine(self._redis, body=body, reason=reason)
            await confirm(self._redis, self._wait_replicas)
        self._log.warning("quarantined", reason=reason, kept_as=kept_as)
        return Answer(status=202, body={"status": "quarantined", "reason": reason, "id": kept_as})

    async def _keep(self, event: Event, body: bytes, noted: Mapping[str, object]) -> Answer:
        """Without the fields' ids nothing can be planned, and nothing may be lost."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._redis.rpush(keys.BACKLOG, body)
            await confirm(self._redis, self._wait_replicas)
        facts = _facts(event)
        self._log.warning("kept for planning", **noted, event_id=event.id, type=facts["type"])
        reason = "will be planned as soon as Close's fields are known"
        return Answer(status=202, body={**facts, "status": "accepted", "reason": reason})

    async def _process(
        self, event: Event, body: bytes, knowledge: Knowledge, noted: Mapping[str, object]
    ) -> Answer:
        try:
            return await self._plan_and_accept(event, knowledge, noted)
        except (RedisError, StoreUnavailableError, OSError):
            raise
        except Exception as error:  # noqa: BLE001  a mistake of ours must not cost the event: a person gets it
            return await self._quarantine(body, f"internal error: {type(error).__name__}")

    async def _plan_and_accept(
        self, event: Event, knowledge: Knowledge, noted: Mapping[str, object]
    ) -> Answer:
        facts = _facts(event)
        with self._tracing.step("plan"):
            planned = self.plan(event, knowledge)
        if isinstance(planned, Ignored):
            self._tell("ignored", facts, noted, reason=planned.text)
            return Answer(status=200, body={**facts, "status": "ignored", "reason": planned.text})
        if not planned.enrichments:
            skipped = list(planned.skipped)
            self._tell("ignored", facts, noted, skipped=skipped)
            return Answer(
                status=200,
                body={**facts, "status": "ignored", "reason": "no rule wants it", "skipped": skipped},
            )
        budget = knowledge.rulebook.budget
        burst = None if budget is None else budget.burst
        accepted = await self._accepter.accept(event, planned.enrichments, burst=burst)
        duplicate = all(one.result == "duplicate" for one in accepted)
        status = "duplicate" if duplicate else "accepted"
        told = {"planned": accepted, "skipped": list(planned.skipped)}
        self._tell(status, facts, noted, **told)
        return Answer(status=202, body={**facts, "status": status, **told})

    def _tell(
        self, status: str, facts: Mapping[str, str], noted: Mapping[str, object], **more: object
    ) -> None:
        """Log what became of an event; where nobody wants the line, it is not made ready either."""
        if self._log.is_enabled_for(logging.INFO):
            named = {**noted, "event_id": facts["event"], "type": facts["type"]}
            self._log.info(status, **named, **msgspec.to_builtins(more))

    def plan(self, event: Event, knowledge: Knowledge) -> Plan | Ignored:
        """What the rules make of an event."""
        return knowledge.plan(event, own_api_key_id=self._own_api_key_id)

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
        """Plan the oldest event; False where there is nothing to do for now."""
        if not self._knowledge().complete:
            await learn()
        knowledge = self._knowledge()
        if not knowledge.complete:
            return False
        body = await self._redis.lindex(keys.BACKLOG, 0)
        if not isinstance(body, bytes):
            return False
        event = parse_event(body)
        try:
            if isinstance(event, Unparseable):
                await self._quarantine(body, event.reason)
            else:
                with self._tracing.step("plan what was kept", within=NEW_TRACE) as step:
                    _note(step, await self._process(event, body, knowledge, {"backlog": True}))
        except StoreUnavailableError as error:
            if isinstance(error.__cause__, ResponseError):
                # Redis is there but refuses this one: the others have their turn before it is tried again
                await self._redis.lmove(keys.BACKLOG, keys.BACKLOG, "LEFT", "RIGHT")
            raise
        await self._redis.lrem(keys.BACKLOG, 1, cast("str", body))
        return True


def _note(step: Step, answer: Answer) -> None:
    facts = {"event.id": answer.body.get("event"), "event.type": answer.body.get("type")}
    step.note({name: value for name, value in facts.items() if value is not None})
    step.note({"delivery.result": answer.result, "http.response.status_code": answer.status})
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        step.fail(str(answer.status))


def _facts(event: Event) -> dict[str, Any]:
    """What every answer to an event that could be read begins with."""
    return {"event": event.id, "type": f"{event.object_type}.{event.action}"}
