"""Close's custom field schemas in Redis, for all processes; read again when older than an hour."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from service import keys
from service.rules import ObjectType
from service.schema import Schema, parse_schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis.asyncio import Redis
    from structlog.typing import FilteringBoundLogger


FRESH_SECONDS = 3600
ASK_SECONDS = 60
"""Longer than Close is waited for, so that one process at a time asks for all."""
RETRY_SECONDS = 15
"""How soon an unanswered question is asked again."""

FetchSchema = Callable[[ObjectType], Awaitable[bytes | None]]
"""Asks Close for the schema of an object type; None where no usable answer came."""


class _Cached(msgspec.Struct, frozen=True):
    read_at_seconds: int
    schema: msgspec.Raw


class SchemaCache:
    """Schemas by object type, from Redis or from Close.

    Args:
        redis: where all processes share them.
        fetch: asks Close; None in a process that has no API key and leaves that to the others.
        log: tells when Close was asked and what came of it.
    """

    def __init__(self, redis: Redis, *, fetch: FetchSchema | None, log: FilteringBoundLogger) -> None:
        self._redis = redis
        self._fetch = fetch
        self._log = log

    async def load(self, wanted: frozenset[ObjectType] | None = None) -> Mapping[ObjectType, Schema]:
        """The schemas of the wanted object types, all by default; one that cannot be had is missing.

        A schema older than an hour is read again from Close. Where Close does not answer, the old one serves.

        Raises:
            redis.RedisError: Redis cannot be asked.
        """
        found: dict[ObjectType, Schema] = {}
        for object_type in ObjectType:
            if wanted is None or object_type in wanted:
                schema = await self._one(object_type)
                if schema is not None:
                    found[object_type] = schema
        return found

    async def _one(self, object_type: ObjectType) -> Schema | None:
        cached, read_at_seconds = _decoded(await self._redis.get(keys.schema(object_type)))
        if cached is not None:
            now_seconds, _ = await self._redis.time()
            # a time in the future says nothing about age: the clock has been set since
            if 0 <= now_seconds - read_at_seconds < FRESH_SECONDS:
                return cached
        if self._fetch is None:
            return cached
        asker = keys.schema_asker(object_type)
        if not await self._redis.set(asker, "1", ex=ASK_SECONDS, nx=True):
            return cached
        fresh = await self._ask_close(object_type, self._fetch)
        if fresh is None:
            await self._redis.expire(asker, RETRY_SECONDS)
            return cached
        await self._redis.delete(asker)
        return fresh

    async def _ask_close(self, object_type: ObjectType, fetch: FetchSchema) -> Schema | None:
        payload = await fetch(object_type)
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


def _decoded(raw: bytes | str | None) -> tuple[Schema | None, int]:
    """A cached schema and when it was read; what another version wrote is no schema."""
    if raw is None:
        return None, 0
    try:
        stored = msgspec.json.decode(raw, type=_Cached)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None, 0
    return Schema.from_json(bytes(stored.schema)), stored.read_at_seconds
