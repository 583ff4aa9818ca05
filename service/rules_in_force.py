"""Which rules each process runs, and of which release it is, told to all in Redis.

A process says so again every few seconds; one that is silent is forgotten soon.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
from redis.exceptions import RedisError

from service import keys
from service.package_version import package_version
from service.redis_text import raw_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio import Redis

TICK_SECONDS = 1.0
SAY_EVERY_TICKS = 10
FORGET_AFTER_SECONDS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesState:
    """The rules of this process, and what is wrong with the file as it is now.

    Attributes:
        digest: names the version of the file whose rules are in force.
        read_at_ms: when that was read, Unix milliseconds.
        problems: why the file as it is now cannot be used, a line each; empty where it is in force.
    """

    digest: str
    read_at_ms: int
    problems: tuple[str, ...] = ()

    @property
    def problem(self) -> str:
        """The problems in one sentence; "" where there is none."""
        if not self.problems:
            return ""
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        return f"the rules of {moment(self.read_at_ms)} stay in force: {self.problems[0]}{more}"


class InForce(msgspec.Struct, frozen=True, kw_only=True):
    """What one process has said of its rules.

    Attributes:
        process: which one, in words.
        role: `web` or `worker`; "" where an older version said it.
        host: the machine it runs on; "" where an older version said it.
        digest: names the version of the file whose rules it runs.
        read_at_ms: when it read that, Unix milliseconds.
        problem: why it cannot use the file as it is now, in a sentence; "" where it can.
        said_at_seconds: when it said so, by Redis's clock.
        version: of the package that it runs; "" where an older release did not say.
    """

    process: str
    role: str = ""
    host: str = ""
    digest: str
    read_at_ms: int
    problem: str = ""
    said_at_seconds: int = 0
    version: str = ""


class Publisher:
    """Says which rules this process runs.

    Args:
        redis: where all processes say it.
        role: `web` or `worker`.
        state: the rules as they are now.
    """

    def __init__(self, redis: Redis, *, role: str, state: Callable[[], RulesState]) -> None:
        self._redis = redis
        self._role = role
        self._host = socket.gethostname()
        self._process = f"{role} on {self._host}, process {os.getpid()}"
        self._state = state
        self._version = package_version()

    async def say(self) -> None:
        """Say it once.

        Raises:
            redis.RedisError: Redis cannot be asked.
        """
        state = self._state()
        now_seconds = await _now_seconds(self._redis)
        said = InForce(
            process=self._process,
            role=self._role,
            host=self._host,
            digest=state.digest,
            read_at_ms=state.read_at_ms,
            problem=state.problem,
            said_at_seconds=now_seconds,
            version=self._version,
        )
        gone = [
            name
            for name, raw in raw_hash(await self._redis.hgetall(keys.RULES)).items()
            if not _lives(_decoded(raw), now_seconds)
        ]
        async with self._redis.pipeline() as pipeline:
            if gone:
                pipeline.hdel(keys.RULES, *[name.decode() for name in gone])
            pipeline.hset(keys.RULES, self._process, msgspec.json.encode(said).decode())
            pipeline.expire(keys.RULES, FORGET_AFTER_SECONDS)
            await pipeline.execute()

    async def run(self) -> None:
        """Say it again and again, and soon after a change, until cancelled; then take it back."""
        said: RulesState | None = None
        ticks = 0
        try:
            while True:
                if said != self._state() or ticks % SAY_EVERY_TICKS == 0:
                    state = self._state()
                    with contextlib.suppress(RedisError, OSError):
                        await self.say()
                        said = state
                ticks += 1
                await asyncio.sleep(TICK_SECONDS)
        finally:
            with contextlib.suppress(RedisError, OSError):
                await self._redis.hdel(keys.RULES, self._process)


async def rules_in_force(redis: Redis) -> tuple[InForce, ...]:
    """What the living processes have said, by their names.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    raw = raw_hash(await redis.hgetall(keys.RULES))
    if not raw:
        return ()
    now_seconds = await _now_seconds(redis)
    said = (_decoded(one) for one in raw.values())
    found = [one for one in said if one is not None and _lives(one, now_seconds)]
    return tuple(sorted(found, key=lambda one: one.process))


def file_problem(said: Sequence[InForce]) -> str:
    """Why processes cannot use the rules file as it is, in a sentence; "" where all can."""
    broken = [one for one in said if one.problem]
    if not broken:
        return ""
    more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
    return f"{broken[0].process}{more}: {broken[0].problem}"


def disagreement(said: Sequence[InForce]) -> str:
    """Who runs other rules than the process that has read its file last; "" where all run the same."""
    if not said:
        return ""
    newest = max(said, key=lambda one: one.read_at_ms)
    others = [one for one in said if one.digest != newest.digest]
    if not others:
        return ""
    names = "; ".join(f"{one.process} (rules of {moment(one.read_at_ms)})" for one in others)
    return f"not all run the rules of {newest.process} ({moment(newest.read_at_ms)}): {names}"


def moment(at_ms: int) -> str:
    """A moment for people, UTC."""
    return f"{dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


def _lives(said: InForce | None, now_seconds: int) -> bool:
    return said is not None and now_seconds - said.said_at_seconds < FORGET_AFTER_SECONDS


def _decoded(raw: bytes) -> InForce | None:
    """What a process said; None for what another version may have written."""
    try:
        return msgspec.json.decode(raw, type=InForce)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


async def _now_seconds(redis: Redis) -> int:
    seconds, _ = await redis.time()
    return int(seconds)
