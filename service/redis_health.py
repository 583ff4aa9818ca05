"""Whether a Redis keeps what it is given: what would lose work is a problem, what may cost little is a note.

`INFO` says most of it. What only `CONFIG GET` tells is left out where a provider forbids that command.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError, ResponseError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from redis.asyncio import Redis
    from structlog.typing import FilteringBoundLogger

LEAST_VERSION = (7, 0)
"""What our commands need: `PEXPIRE … GT` is the newest of them. https://redis.io/docs/latest/commands/pexpire/"""

LOOK_EVERY_SECONDS = 300.0
LOOK_AGAIN_SECONDS = 2.0

FULL_SHARE = 0.9
LAGGING_SECONDS = 10

_ASKED = ("appendfsync", "min-replicas-to-write")
_TO_MAKE_IT_LAST = "set it in redis.conf, too"


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisHealth:
    """What one look at Redis found.

    Attributes:
        version: such as `7.2.4`; "" where Redis does not say.
        server_name: `redis`, `valkey` or another.
        problems: what can lose work or stop the service, a sentence each; empty where all is well.
        notes: what is worth knowing, a sentence each.
        readable: whether Redis answered all questions; a note says which it refused.
    """

    version: str
    server_name: str
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    readable: bool = True


def problems_with(info: Mapping[str, Any], config: Mapping[str, str]) -> tuple[str, ...]:
    """What can lose work or stop the service. Pure.

    Args:
        info: as `INFO` has it; what is missing is not judged.
        config: as `CONFIG GET` has it; may be empty.
    """
    return tuple(_problems(info, config))


def notes_on(info: Mapping[str, Any], config: Mapping[str, str]) -> tuple[str, ...]:
    """What is worth knowing about how far Redis's promises go. Pure.

    Args:
        info: as `INFO` has it.
        config: as `CONFIG GET` has it; may be empty.
    """
    return tuple(_notes(info, config))


def _problems(info: Mapping[str, Any], config: Mapping[str, str]) -> Iterator[str]:
    if str(info.get("cluster_enabled", 0)) == "1":
        yield "cluster mode is on, which is not supported: expected a single Redis, or Sentinel"
    # Valkey calls itself Redis 7.2.4 here, for clients that ask
    version = str(info.get("redis_version", ""))
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is not None and (int(numbers[1]), int(numbers[2])) < LEAST_VERSION:
        yield f"version {version} is too old: expected {'.'.join(map(str, LEAST_VERSION))} or newer"
    if info.get("role", "master") != "master":
        yield "it is a replica and takes no writes: expected the master's address, or redis+sentinel://"
    if str(info.get("aof_enabled", 1)) == "0":
        yield (
            "appendonly is off: a restart forgets what came in since the last snapshot. "
            f"CONFIG SET appendonly yes, and {_TO_MAKE_IT_LAST}"
        )
    elif info.get("aof_last_write_status", "ok") != "ok":
        yield "the last write to the append-only file failed: is the disk full?"
    yield from _memory_problems(info)
    yield from _replica_problems(info, config)


def _memory_problems(info: Mapping[str, Any]) -> Iterator[str]:
    most, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    policy = _policy(info)
    if most and policy != "noeviction":
        yield (
            f"maxmemory-policy is {policy}: a full Redis drops work to make room. "
            f"CONFIG SET maxmemory-policy noeviction, and {_TO_MAKE_IT_LAST}"
        )
    if most and used > FULL_SHARE * most:
        yield f"{used / most:.0%} of maxmemory is used: a full Redis takes no more events. Raise maxmemory"


def _replica_problems(info: Mapping[str, Any], config: Mapping[str, str]) -> Iterator[str]:
    replicas = _replicas(info)
    slow = [one for one in replicas if one.get("state") != "online" or _lag(one) > LAGGING_SECONDS]
    if slow:
        yield (
            f"{len(slow)} of {len(replicas)} replicas lag behind: a failover now would lose the last writes"
        )
    wanted = int(config.get("min-replicas-to-write", 0))
    if wanted > len(replicas) - len(slow):
        yield (
            f"{len(replicas) - len(slow)} replicas follow and min-replicas-to-write is {wanted}: "
            "nothing can be written"
        )


def _notes(info: Mapping[str, Any], config: Mapping[str, str]) -> Iterator[str]:
    policy = _policy(info)
    if policy != "noeviction" and not int(info.get("maxmemory", 0)):
        yield f"maxmemory-policy is {policy}: once maxmemory is set, it would drop work; noeviction would not"
    match config.get("appendfsync") if str(info.get("aof_enabled", 1)) == "1" else None:
        case "everysec":
            yield "appendfsync is everysec: a crash may cost the last second or two; always loses nothing"
        case "no":
            yield "appendfsync is no: a crash of the machine may cost half a minute; always loses nothing"
    if int(info.get("connected_slaves", 0)) and config.get("min-replicas-to-write") == "0":
        yield (
            "min-replicas-to-write is 0: a failover may cost writes that no replica has yet. "
            "Set it to 1, or set REDIS_WAIT_REPLICAS"
        )


def _policy(info: Mapping[str, Any]) -> str:
    return str(info.get("maxmemory_policy", "noeviction"))


def _replicas(info: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    # redis-py reads a line `slave0:ip=…,state=…` as a mapping
    lines = (value for name, value in info.items() if re.fullmatch(r"slave\d+", name))
    return [line for line in lines if isinstance(line, dict)]


def _lag(replica: Mapping[str, Any]) -> int:
    return int(replica.get("lag", 0))


async def redis_health(redis: Redis) -> RedisHealth:
    """Look once at Redis's state and configuration; nothing is changed.

    Raises:
        RedisError: it does not answer.
        OSError: it does not answer.
    """
    notes = []
    try:
        info: Mapping[str, Any] = await redis.info()
    except ResponseError as error:
        info = {}
        notes.append(_not_checked("INFO", error))
    try:
        answer = await redis.config_get(*_ASKED)
        config = {str(name): str(value) for name, value in answer.items()}
    except ResponseError as error:
        config = {}
        notes.append(_not_checked("CONFIG GET", error))
    return RedisHealth(
        version=str(info.get("valkey_version") or info.get("redis_version", "")),
        server_name=str(info.get("server_name") or "redis"),
        problems=problems_with(info, config),
        notes=(*notes_on(info, config), *notes),
        readable=not notes,
    )


def _not_checked(command: str, error: ResponseError) -> str:
    what = "appendfsync and min-replicas-to-write" if command == "CONFIG GET" else "persistence and memory"
    return f"{command} is refused ({type(error).__name__}), so {what} could not be checked"


class HealthWatch:
    """Looks at Redis's health now and then, tells what is new, and keeps what was found last.

    Args:
        redis: an asyncio client.
        log: a warning for each problem, once until it changes.
    """

    def __init__(self, redis: Redis, *, log: FilteringBoundLogger) -> None:
        self._redis = redis
        self._log = log
        self._told: RedisHealth | None = None

    def problems(self) -> tuple[str, ...]:
        """What the last look found wrong; empty before the first one."""
        return () if self._told is None else self._told.problems

    async def run(self) -> None:
        """Look every few minutes until cancelled: another master may be set up in another way."""
        while True:
            pause_seconds = LOOK_EVERY_SECONDS
            try:
                await self.look()
            except (RedisError, OSError):
                # those who work with Redis say that it is away
                pause_seconds = LOOK_AGAIN_SECONDS
            await asyncio.sleep(pause_seconds)

    async def look(self) -> None:
        """Look once, and tell what is new.

        Raises:
            RedisError: it does not answer.
            OSError: it does not answer.
        """
        health = await redis_health(self._redis)
        before, self._told = self._told, health
        if before is None or before.version != health.version:
            self._log.info("Redis looked at", server=health.server_name, version=health.version)
        for problem in health.problems:
            if before is None or problem not in before.problems:
                self._log.warning("Redis needs attention", problem=problem)
        for note in health.notes:
            if before is None or note not in before.notes:
                (self._log.info if health.readable else self._log.debug)("worth knowing", redis=note)
