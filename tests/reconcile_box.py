"""A reconciler on a real Redis and a sandbox whose clock is set by hand."""

from __future__ import annotations

import contextlib
import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog
from ledger_box import LedgerBox
from receiver_box import rulebook
from sandbox_box import Box, chance, running

from service import keys
from service.enrichment import entry_id
from service.knowledge import Knowledge
from service.redis_text import texts
from service.rules import ObjectType
from service.sandbox import records
from service.sandbox.options import DEMO_API_KEY
from service.schema import Schema, parse_schema
from workers.close_api import CloseApi
from workers.log_reader import LogReader
from workers.reconcile import Reconciler
from workers.reply import Reply
from workers.throttle import Ceiling, Throttle
from workers.tools import READ_GROUP

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

RULES = """
version: 1
defaults: {settle: 0s}
rules:
  - {name: Industry, object: lead, field: Industry}
  - {name: Seniority, object: contact, field: Seniority}
"""


class Api(CloseApi):
    """Close's API that remembers what pages it was asked for, and can be tampered with."""

    def __init__(self, url: str) -> None:
        super().__init__(api_key=DEMO_API_KEY, base_url=url, connect_timeout_seconds=10)
        self.asked: list[dict[str, str]] = []
        self.meanwhile: dict[int, Any] = {}
        """What to do, or to await, before the page of that number is asked for, counted from 1."""

    async def get_log_page(self, *, filters, **more):
        self.asked.append(dict(filters))
        act = self.meanwhile.get(len(self.asked))
        if act is not None and inspect.isawaitable(acting := act()):
            await acting
        return await super().get_log_page(filters=filters, **more)


@dataclass
class ReconcileBox:
    """What the tests look into."""

    box: Box
    redis: Redis
    api: Api
    knowledge: Knowledge
    ledger: LedgerBox
    pauses: list[float] = field(default_factory=list)
    log: structlog.testing.CapturingLogger = field(default_factory=structlog.testing.CapturingLogger)

    def reconciler(self, **changes: Any) -> Reconciler:
        parts = {
            "reader": self.reader(),
            "accepter": self.ledger.accepter,
            "knowledge": lambda: self.knowledge,
            "own_api_key_id": DEMO_API_KEY.partition(".")[0],
            "now_ms": lambda: round(self.box.world.clock() * 1000),
            "log": self.log,
        }
        return Reconciler(self.redis, **parts | changes)

    def reader(self) -> LogReader:
        async def pause(seconds: float) -> None:
            self.pauses.append(seconds)

        pace = Throttle(self.redis, limiter="enrich:limiter:test:read", group=READ_GROUP, ceiling=Ceiling())
        return LogReader(self.api, pace=pace, brakes=self.ledger.ledger.brakes, random=chance(3), pause=pause)

    def rules(self, text: str) -> None:
        """Put other rules in force."""
        self.knowledge = Knowledge.of(rulebook(text), self.knowledge.schemas)

    def add_lead(self, **body: Any) -> dict[str, Any]:
        """A person makes a lead, and nothing is delivered."""
        body = {"name": "Brindlemoor Joinery", **body}
        return records.create_lead(self.box.world, body, self.box.world.cause(path="/lead/", method="POST"))

    def change(self, lead: dict[str, Any], **changes: Any) -> None:
        world = self.box.world
        records.update(world, "lead", lead["id"], changes, world.cause(path="/lead/", method="PUT"))

    def entry_of(self, object_id: str, field_name: str = "Industry") -> str:
        return entry_id(
            organization_id=self.box.world.organization.id,
            object_id=object_id,
            field_id=self.box.world.field_named(field_name).id,
        )

    async def entries(self) -> list[str]:
        """The ids of all entries there are."""
        return sorted(key.rpartition(":")[2] for key in texts(await self.redis.keys(keys.entry("*"))))

    async def mark(self, pair: str = "lead.created") -> str | None:
        raw = await self.redis.get(keys.log_mark(*pair.split(".")))
        return None if raw is None else raw.decode()

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [call.kwargs for call in self.log.calls if call.args == (event,)]


async def _schema(api: CloseApi, object_type: ObjectType) -> Schema:
    reply = await api.get_schema(object_type=object_type)
    schema = parse_schema(reply.body, object_type=object_type) if isinstance(reply, Reply) else None
    if isinstance(schema, Schema):
        return schema
    raise AssertionError(schema or reply)


@contextlib.asynccontextmanager
async def reconciling(redis: Redis, *, rules: str = RULES, **options: Any) -> AsyncIterator[ReconcileBox]:
    """A sandbox, a Redis that knows nothing, and what walks the one for the other."""
    async with running(**options) as box:
        api = Api(f"{box.url}/api/v1")
        schemas = {one: await _schema(api, one) for one in ObjectType}
        knowledge = Knowledge.of(rulebook(rules), schemas)
        try:
            yield ReconcileBox(box, redis, api, knowledge, LedgerBox(redis))
        finally:
            await api.aclose()
