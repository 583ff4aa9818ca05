"""The sandbox's application: https://api.close.com/api/v1/ played from memory.

One mount and a table instead of a framework's routes: the sandbox shares its machine with what it measures.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.routing import Mount

from service.sandbox import (
    enrichment_api,
    events_api,
    records_api,
    schema_api,
    search_api,
    webhook_api,
)
from service.sandbox.control import Control
from service.sandbox.delivery import Deliveries
from service.sandbox.exchange import Exchange, send_reply
from service.sandbox.wire import Reply, Request, answer, failure, missing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Receive, Scope, Send

    from service.sandbox.faults import FaultRule
    from service.sandbox.limits import Taken
    from service.sandbox.world import World

API_PREFIX = "/api/v1/"
MOST_BODY_BYTES = 4 * 1024 * 1024

Handler = Callable[["World", Request], Reply]

ENRICH = "POST enrich_field"
"""The endpoint group of enrichment."""


def _enrichment_is_played_elsewhere(_world: World, _request: Request) -> Reply:
    raise RuntimeError("enrichment takes time and is answered by the dispatcher")


_EXACT: dict[str, dict[str, Handler]] = {
    "me": {"GET": schema_api.get_me},
    "lead": {"POST": records_api.post_lead},
    "contact": {"POST": records_api.post_contact},
    "lead/merge": {"POST": records_api.merge_leads},
    "event": {"GET": events_api.list_events},
    "webhook": {"GET": webhook_api.list_webhooks, "POST": webhook_api.post_webhook},
    "data/search": {"POST": search_api.search},
    "enrich_field": {"POST": _enrichment_is_played_elsewhere},
}
_WITH_ID: dict[str, dict[str, Handler]] = {
    "lead": {
        "GET": records_api.get_lead,
        "PUT": records_api.put_lead,
        "DELETE": records_api.delete_lead,
    },
    "contact": {
        "GET": records_api.get_contact,
        "PUT": records_api.put_contact,
        "DELETE": records_api.delete_contact,
    },
    "event": {"GET": events_api.get_event},
    "webhook": {
        "GET": webhook_api.get_webhook,
        "PUT": webhook_api.put_webhook,
        "DELETE": webhook_api.delete_webhook,
    },
    "custom_field_schema": {"GET": schema_api.get_schema},
    "custom_field": {"GET": schema_api.list_fields},
    "custom_field/lead": {"GET": schema_api.get_lead_field},
    "custom_field/contact": {"GET": schema_api.get_contact_field},
    "custom_field/shared": {"GET": schema_api.get_shared_field},
}


def create_sandbox(world: World) -> Starlette:
    """The sandbox as an application; while its lifespan runs, events are delivered to the subscriptions."""
    dispatcher = Dispatcher(world)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with Deliveries(world), dispatcher.control:
            yield

    return Starlette(routes=[Mount("/", app=dispatcher)], lifespan=lifespan)


class Dispatcher:
    """Finds who answers a call, after the key, the rate limit and the faults have had their say."""

    def __init__(self, world: World) -> None:
        self.control = Control(world)
        self._world = world

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError("the sandbox speaks only HTTP")
        try:
            await self._answer(scope, receive, send)
        except asyncio.CancelledError:
            # Only the server's end cancels a request, and its task ends here; uvicorn would log it as a bug.
            return
        finally:
            self._world.notify()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read_body(receive)
        path: str = scope["path"]
        self._world.tally.requests += 1
        if path.startswith("/_sandbox/"):
            reply = self.control.answer(method=scope["method"], path=path, body=body)
            await send_reply(send, reply, ())
            return
        await self._answer_api(scope, receive, send, body)

    async def _answer_api(self, scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
        world = self._world
        method: str = scope["method"]
        handler, group, object_id = _route(method, scope["path"])
        api_key_id = world.api_key_id(_authorization(scope))
        taken = world.limiter.take(
            api_key_id=api_key_id or "", group=group, options=world.options, now=world.clock()
        )
        headers: tuple[tuple[bytes, bytes], ...] = ((b"ratelimit", taken.header.encode()),)
        if not taken.allowed:
            world.tally.rate_limited += 1
            await send_reply(send, _too_many(taken), headers)
            return
        if api_key_id is None:
            await send_reply(send, failure(401, "The API key is missing or not valid."), headers)
            return
        request = Request(
            method=method,
            path=scope["path"],
            object_id=object_id,
            query_string=scope["query_string"],
            body=body,
            api_key_id=api_key_id,
        )
        if group == ENRICH and (named := enrichment_api.target(body)) is not None:
            request.call = world.calls.begin(object_id=named[0], field_id=named[1], now=world.clock())
            world.notify()
        status: int | None = None
        try:
            status = await self._work(request, handler, group, Exchange(scope, receive, send, headers))
        finally:
            if request.call is not None:
                world.calls.end(request.call, status=status, now=world.clock())

    async def _work(
        self, request: Request, handler: Handler | Reply, group: str, exchange: Exchange
    ) -> int | None:
        """Answer, or fail to as a fault demands; the status answered, None for none."""
        fault = self._fault(request, group)
        if fault is not None:
            if fault.happens_before:
                return await exchange.play(fault, None)
            if fault.name == "slow":
                await asyncio.sleep(fault.number)
        if isinstance(handler, Reply):
            reply = handler
        elif group == ENRICH:
            reply = await self._enrich(request)
        else:
            reply = handler(self._world, request)
        if fault is not None and fault.name != "slow":
            return await exchange.play(fault, reply)
        await exchange.reply(reply)
        return reply.status

    async def _enrich(self, request: Request) -> Reply:
        world = self._world
        begun = enrichment_api.begin(world, request)
        if isinstance(begun, Reply):
            return begun
        options = world.options
        await asyncio.sleep(world.random.uniform(options.latency_min_seconds, options.latency_max_seconds))
        # A client that is gone by now changes nothing: the work is done, saved and charged.
        return enrichment_api.finish(world, request, *begun)

    def _fault(self, request: Request, group: str) -> FaultRule | None:
        world = self._world
        if not world.faults:
            return None
        field_id = None if request.call is None else request.call.field_id
        fault = world.faults.pick(group=group, field_id=field_id, random=world.random)
        if fault is not None and request.call is not None:
            request.call.fault = fault.kind
        return fault


def _route(method: str, path: str) -> tuple[Handler | Reply, str, str]:
    """Who answers, the endpoint group (method and URL prefix), and the id in the path."""
    if not path.startswith(API_PREFIX) or not path.endswith("/"):
        return missing(), f"{method} other", ""
    trail = path[len(API_PREFIX) : -1]
    handlers, prefix, object_id = _EXACT.get(trail), trail, ""
    if handlers is None:
        prefix, _, object_id = trail.rpartition("/")
        handlers = _WITH_ID.get(prefix)
    if handlers is None:
        return missing(), f"{method} other", ""
    handler = handlers.get(method)
    if handler is None:
        allowed = ((b"allow", ", ".join(handlers).encode()),)
        return answer({"error": "Method not allowed."}, status=405, headers=allowed), f"{method} {prefix}", ""
    return handler, f"{method} {prefix}", object_id


def _authorization(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"authorization":
            return bytes(value)
    return b""


def _too_many(taken: Taken) -> Reply:
    headers = ((b"retry-after", taken.retry_after.encode()),)
    return answer({"error": "Too many requests."}, status=429, headers=headers)


async def _read_body(receive: Receive) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MOST_BODY_BYTES:
            return b""
    return body
