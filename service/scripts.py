"""The Lua scripts, read from their files. Each states its KEYS, ARGV and answer at its top.

A script is run by its digest, so that its text crosses the wire once. A Redis that was restarted or has taken
over from another knows no digests: it is then sent the text, in the same step that runs it.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis.asyncio


@cache
def script_text(name: str, *, package: str = "service") -> str:
    """The text of `<package>/lua/<name>.lua`, with what all scripts share put before it.

    Raises:
        FileNotFoundError: there is no such script.
    """
    shared = (files("service") / "lua" / "entry.lua").read_text(encoding="utf-8")
    return shared + "\n" + (files(package) / "lua" / f"{name}.lua").read_text(encoding="utf-8")


def digest(script: str) -> str:
    """What Redis calls a script."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


class Script:
    """A script that asyncio code runs.

    Args:
        redis: where.
        text: see `script_text`.

    Attributes:
        digest: what Redis calls it.
    """

    def __init__(self, redis: redis.asyncio.Redis, text: str) -> None:
        self._redis = redis
        self._text = text
        self.digest = digest(text)

    async def __call__(self, *, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run it; its answer.

        Raises:
            redis.RedisError: Redis cannot be asked, or the script went wrong.
        """
        try:
            return await self._redis.evalsha(self.digest, len(keys), *keys, *args)
        except NoScriptError:
            return await self._redis.eval(self._text, len(keys), *keys, *args)

    async def several(self, steps: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
        """Run it several times in one round trip, each a step of its own; the answers in the same order.

        Args:
            steps: keys and arguments of each run.

        Raises:
            redis.RedisError: Redis cannot be asked, or a run went wrong; others may have been done.
        """
        async with self._redis.pipeline(transaction=False) as pipeline:
            for keys, args in steps:
                pipeline.evalsha(self.digest, len(keys), *keys, *args)
            answers = await pipeline.execute(raise_on_error=False)
        for index, (keys, args) in enumerate(steps):
            if isinstance(answers[index], NoScriptError):
                answers[index] = await self(keys=keys, args=args)
            elif isinstance(answers[index], Exception):
                raise answers[index]
        return answers


class BlockingScript:
    """A script that a thread runs. See `Script`."""

    def __init__(self, redis: redis.Redis, text: str) -> None:
        self._redis = redis
        self._text = text
        self._digest = digest(text)

    def __call__(self, *, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run it; its answer.

        Raises:
            redis.RedisError: Redis cannot be asked, or the script went wrong.
        """
        try:
            return self._redis.evalsha(self._digest, len(keys), *keys, *args)
        except NoScriptError:
            return self._redis.eval(self._text, len(keys), *keys, *args)
