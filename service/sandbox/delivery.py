"""Plays Close's side of webhooks: signed deliveries, several at once, in no order, retried on its schedule.

Source: https://developer.close.com/api/resources/webhooks and a captured delivery. `created` and most actions
are delivered at once, `updated` and `deleted` after the consolidation delay. Only a 2xx is success; redirects
are not followed.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import hmac
import itertools
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

import httpx

from service.sandbox.filters import matches
from service.sandbox.journal import CONSOLIDATED_ACTIONS
from service.sandbox.subscriptions import Attempt, next_retry_seconds

if TYPE_CHECKING:
    from service.sandbox.journal import Event
    from service.sandbox.subscriptions import Interest, Subscription
    from service.sandbox.world import World


def delivery_body(subscription_id: str, event: Event) -> bytes:
    """The body Close sends: one line, separators `, ` and `: `, everything beyond ASCII escaped."""
    return json.dumps({"subscription_id": subscription_id, "event": event}).encode("ascii")


def delivery_headers(*, signature_key: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers Close sends, with the signature over timestamp and body.

    Args:
        signature_key: 32 bytes in hex.
        timestamp: Unix seconds.
        body: the raw body.
    """
    message = str(timestamp).encode("ascii") + body
    return {
        "Accept": "*/*",
        "Accept-Encoding": "gzip, deflate",
        "content-type": "application/json",
        "User-Agent": "Close Webhooks 2.0",
        "Close-Sig-Hash": hmac.new(bytes.fromhex(signature_key), message, hashlib.sha256).hexdigest(),
        "Close-Sig-Timestamp": str(timestamp),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Delivery:
    """An event on its way to one subscription; void once the subscription's generation has moved on."""

    subscription: Subscription
    generation: int
    event: Event
    failed_attempts: int = 0
    first_at: float | None = None
    signed_at: int | None = None


@dataclass(frozen=True, slots=True, order=True)
class _Due:
    """Something for later: an event to hand out, or a delivery to try again."""

    at: float
    order: int
    item: Event | _Delivery = field(compare=False)


class Deliveries:
    """Delivers the world's events while it is entered.

    Use it as an async context manager; leaving ends all attempts in flight.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._later: list[_Due] = []
        self._order = itertools.count()
        self._ready: asyncio.Queue[_Delivery] = asyncio.Queue()
        self._wake = asyncio.Event()
        self._clients: dict[bool, httpx.AsyncClient] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._world.listen(self._publish)
        self._world.alarms.add(self._wake)
        self._tasks = [asyncio.create_task(self._keep_time())]
        self._tasks += [
            asyncio.create_task(self._deliver_all()) for _ in range(self._world.options.delivery_concurrency)
        ]
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self._world.unlisten(self._publish)
        self._world.alarms.discard(self._wake)
        for task in self._tasks:
            task.cancel()
        endings = await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in self._clients.values():
            await client.aclose()
        for ending in endings:
            if isinstance(ending, BaseException) and not isinstance(ending, asyncio.CancelledError):
                raise ending

    def _publish(self, event: Event) -> None:
        delay_seconds = self._world.real_seconds(self._world.options.consolidation_seconds)
        if event["action"] in CONSOLIDATED_ACTIONS and delay_seconds > 0:
            self._put_off(event, delay_seconds)
        else:
            self._hand_out(event)

    def _hand_out(self, event: Event) -> None:
        options = self._world.options
        for subscription in self._world.subscriptions.values():
            if subscription.status != "active":
                continue
            if not any(self._wants(interest, event) for interest in subscription.events):
                continue
            subscription.backlog += 1
            self._ready.put_nowait(
                _Delivery(subscription=subscription, generation=subscription.generation, event=event)
            )
            if subscription.backlog >= options.backlog_limit:
                subscription.pause("backlog")

    def _wants(self, interest: Interest, event: Event) -> bool:
        if interest.object_type != event["object_type"] or interest.action != event["action"]:
            return False
        extra_filter, missing_is_null = interest.extra_filter, self._world.options.missing_is_null
        return extra_filter is None or matches(extra_filter, event, missing_is_null=missing_is_null)

    def _put_off(self, item: Event | _Delivery, delay_seconds: float) -> None:
        due = _Due(self._world.clock() + delay_seconds, next(self._order), item)
        heapq.heappush(self._later, due)
        if self._later[0] is due:
            self._wake.set()

    async def _keep_time(self) -> None:
        while True:
            now = self._world.clock()
            while self._later and self._later[0].at <= now:
                item = heapq.heappop(self._later).item
                if isinstance(item, _Delivery):
                    self._ready.put_nowait(item)
                else:
                    # As it is by now: what was consolidated into it meanwhile is delivered with it.
                    self._hand_out(self._world.journal.get(item["id"]) or item)
            self._wake.clear()
            wait_seconds = self._later[0].at - now if self._later else None
            try:
                async with asyncio.timeout(wait_seconds):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _deliver_all(self) -> None:
        while True:
            delivery = await self._ready.get()
            subscription = delivery.subscription
            if subscription.generation != delivery.generation:
                continue
            await self._deliver(delivery)
            self._world.notify()

    async def _deliver(self, delivery: _Delivery) -> None:
        world, subscription = self._world, delivery.subscription
        started_at = world.clock()
        first_at = started_at if delivery.first_at is None else delivery.first_at
        keeps_signature = delivery.signed_at is not None and not world.options.resign_retries
        signed_at = delivery.signed_at if keeps_signature else int(started_at)
        status, error = await self._post(delivery, signed_at or int(started_at))
        attempt = Attempt(
            event_id=delivery.event["id"],
            number=delivery.failed_attempts + 1,
            at=world.clock(),
            status=status,
            error=error,
        )
        subscription.note(attempt, clock_scale=world.options.clock_scale)
        if error is None:
            world.tally.deliveries_succeeded += 1
        else:
            world.tally.deliveries_failed += 1
        if subscription.generation != delivery.generation:
            return
        retry_seconds = None
        if error is not None:
            retry_seconds = next_retry_seconds(
                failed_attempts=attempt.number,
                age_seconds=(attempt.at - first_at) / world.options.clock_scale,
            )
            world.tally.deliveries_dropped += retry_seconds is None
        if retry_seconds is None:
            subscription.backlog -= 1
            return
        again = replace(delivery, failed_attempts=attempt.number, first_at=first_at, signed_at=signed_at)
        self._put_off(again, world.real_seconds(retry_seconds))

    async def _post(self, delivery: _Delivery, timestamp: int) -> tuple[int | None, str | None]:
        """The receiver's status and, for a failure, the exception's name in Close's words."""
        subscription = delivery.subscription
        body = delivery_body(subscription.id, delivery.event)
        headers = delivery_headers(signature_key=subscription.signature_key, timestamp=timestamp, body=body)
        try:
            response = await self._client(verify=subscription.verify_ssl).post(
                subscription.url,
                content=body,
                headers=headers,
                timeout=self._world.options.delivery_timeout_seconds,
            )
        except httpx.TimeoutException:
            return None, "Timeout"
        except (httpx.HTTPError, httpx.InvalidURL):
            return None, "ConnectionError"
        return response.status_code, None if response.is_success else "HTTPError"

    def _client(self, *, verify: bool) -> httpx.AsyncClient:
        if verify not in self._clients:
            # A receiver on this machine is never behind a proxy.
            self._clients[verify] = httpx.AsyncClient(verify=verify, trust_env=False)
        return self._clients[verify]
