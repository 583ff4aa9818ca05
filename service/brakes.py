"""What stops calls from leaving: the kill switch, a parked endpoint group, a field's open breaker.

All of it is in Redis, so it holds for every worker at once and over restarts. The script that permits a call
(call.lua) looks at all three; nothing here needs to be polled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from service import keys
from service.redis_text import raw_hash, texts
from service.scripts import Script, script_text

if TYPE_CHECKING:
    from redis.asyncio import Redis

PROBE_INTERVAL_SECONDS = 300
"""How often one call is tried while a refused key or used-up credits halt all others."""

PERSON = "person"
"""The kind of a halt that only a person lifts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """Why no call leaves; `kind` is what the reply that caused it was about, or `PERSON`."""

    reason: str
    kind: str
    since_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When a field that keeps timing out is left alone, and for how long: the pause doubles each time.

    Attributes:
        most_timeouts: in a row, before the breaker opens.
        first_pause_seconds: when it opens for the first time.
        longest_pause_seconds: however often it opens.
    """

    most_timeouts: int = 5
    first_pause_seconds: float = 60.0
    longest_pause_seconds: float = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenBreaker:
    """A field that is not called for now.

    Attributes:
        field_id: the custom field.
        field_name: its name when its last call timed out.
        rule: whose call that was.
        timeouts: in a row.
        until_ms: when one call is tried, Unix milliseconds.
    """

    field_id: str
    field_name: str
    rule: str
    timeouts: int
    until_ms: int


class Brakes:
    """The brakes of one Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._halt = Script(redis, script_text("halt"))
        self._resume = Script(redis, script_text("resume"))
        self._try_field = Script(redis, script_text("try_field"))

    async def park(self, group: str, *, seconds: float) -> None:
        """Let no call of an endpoint group leave for so long; a longer parking stays."""
        milliseconds = max(1, round(seconds * 1000))
        async with self._redis.pipeline() as pipeline:
            pipeline.set(keys.park(group), "1", px=milliseconds, nx=True)
            pipeline.pexpire(keys.park(group), milliseconds, gt=True)
            await pipeline.execute()

    async def halt(self, *, reason: str, kind: str, asked_ms: int | None = None) -> bool:
        """Stop every call of the organization; False where it was halted already and stays so as it was.

        Args:
            reason: in words, for people.
            kind: what the halt is about; `PERSON` when somebody asked for it, which replaces any other halt.
            asked_ms: when the call was made that brought it to light, by Redis's clock; one from before the
                last `resume` halts nothing. None for a halt that no call is behind.
        """
        changed = await self._halt(
            keys=[keys.HALT, keys.PROBE, keys.RESUMED],
            args=[reason, kind, PERSON, PROBE_INTERVAL_SECONDS, "" if asked_ms is None else asked_ms],
        )
        return bool(changed)

    async def resume(self, *, automatic_only: bool = False) -> bool:
        """Let calls leave again; False where they were not halted.

        Args:
            automatic_only: leave a halt that a person asked for.
        """
        return bool(
            await self._resume(keys=[keys.HALT, keys.RESUMED], args=[PERSON if automatic_only else ""])
        )

    async def may_try(self) -> bool:
        """Whether one call may be tried although calls are halted: for one asker in each interval."""
        halt = await self.halted()
        if halt is None or halt.kind == PERSON:
            return False
        return bool(await self._redis.set(keys.PROBE, "1", ex=PROBE_INTERVAL_SECONDS, nx=True))

    async def try_soon(self) -> None:
        """Let the next trial come at once: a worker has just started, perhaps with a better key."""
        await self._redis.delete(keys.PROBE)

    async def halted(self) -> Halt | None:
        """Why nothing is called at present, or None."""
        raw = raw_hash(await self._redis.hgetall(keys.HALT))
        if not raw:
            return None
        return Halt(
            reason=raw.get(b"reason", b"").decode(),
            kind=raw.get(b"kind", b"").decode(),
            since_ms=int(raw.get(b"since_ms", 0)),
        )

    async def end_pause(self, field_id: str) -> int | None:
        """Let the next call for a field that is left alone be its trial, now.

        Returns:
            Until when it would have been left alone, Unix milliseconds; None where nothing has changed: it is
            called as usual, its pause is over, or a call is on trial.
        """
        until_ms = await self._try_field(keys=[keys.breaker(field_id)], args=[])
        return None if until_ms is None else int(until_ms)

    async def open_breakers(self) -> list[OpenBreaker]:
        """The fields that are not called for now, and those waiting for their trial call."""
        ids = sorted(texts(await self._redis.smembers(keys.BREAKERS)))
        async with self._redis.pipeline(transaction=False) as pipeline:
            for field_id in ids:
                pipeline.hgetall(keys.breaker(field_id))
            rows = [raw_hash(row) for row in await pipeline.execute()]
        return [
            OpenBreaker(
                field_id=field_id,
                field_name=row[b"name"].decode(),
                rule=row[b"rule"].decode(),
                timeouts=int(row[b"timeouts"]),
                until_ms=int(row[b"until_ms"]),
            )
            for field_id, row in zip(ids, rows, strict=True)
            if b"until_ms" in row
        ]
