"""Close's custom field schemas in Redis, for all processes; read again when older than an hour."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from service import keys
from service.knowledge import Knowledge
from service.rules import ObjectType
from service.schema import Schema, parse_schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis.asyncio import Redis
    from structlog.typing import FilteringBoundLogger

    from service.rules import RuleBook

FRESH_SECONDS = 3600
RETRY_SECONDS = 15
"""How soon an unanswered question is asked again, by one process for all."""

FetchSchema = Callable[[ObjectType], Awaitable[bytes | None]]
"""Asks Close for the schema of an object type; None where no usable answer came."""


class _Cached(msgspec.Struct, frozen=True):
    read_at_seconds: int
    schema: msgspec.Raw


class SchemaCache:
    """Schemas by object type, from Redis or from Close."""

    def __init__(self, redis: Redis, *, fetch: FetchSchema, log: FilteringBoundLogger) -> None:
        self._redis = redis
        self._fetch = fetch
        self._log = log

    async def load(self, wanted: frozenset[ObjectType] | None = None) -> Mapping[ObjectType, Schema]:
        """The schemas of the wanted object types, all by default; one that cannot be had is missing.

        A schema older than an hour is read again from Close. Where Close does not answer, the old one serves.
        """
        found: dict[ObjectType, Schema] = {}
        for object_type in ObjectType:
            if wanted is None or object_type in wanted:
                schema = await self._one(object_type)
                if schema is not None:
                    found[object_type] = schema
        return found

    async def knowledge(self, rulebook: RuleBook) -> Knowledge:
        """The rules bound to the newest schemas."""
        return Knowledge.of(rulebook, await self.load())

    async def _one(self, object_type: ObjectType) -> Schema | None:
        raw = await self._redis.get(keys.schema(object_type))
        cached, age_seconds = None, 0.0
        if raw is not None:
            stored = msgspec.json.decode(raw, type=_Cached)
            cached = Schema.from_json(bytes(stored.schema))
            now_seconds, _ = await self._redis.time()
            age_seconds = now_seconds - stored.read_at_seconds
        if cached is not None and age_seconds < FRESH_SECONDS:
            return cached
        asker = keys.schema(object_type) + ":asked"
        if not await self._redis.set(asker, "1", ex=RETRY_SECONDS, nx=True):
            return cached
        fresh = await self._ask_close(object_type)
        if fresh is None:
            return cached
        await self._redis.delete(asker)
        return fresh

    async def _ask_close(self, object_type: ObjectType) -> Schema | None:
        payload = await self._fetch(object_type)
        if payload is None:
            self._log.warning("Close's custom fields could not be read", object_type=str(object_type))
            return None
        schema = parse_schema(payload, object_type=object_type)
        if not isinstance(schema, Schema):
            self._log.warning(
                "Close's custom fields were not understood", object_type=str(object_type), problem=str(schema)
            )
            return None
        now_seconds, _ = await self._redis.time()
        stored = _Cached(read_at_seconds=now_seconds, schema=msgspec.Raw(schema.to_json()))
        await self._redis.set(keys.schema(object_type), msgspec.json.encode(stored))
        self._log.info("read Close's custom fields", object_type=str(object_type), fields=len(schema.fields))
        return schema
