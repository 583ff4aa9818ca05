"""Scripts of many tasks in one round trip to Redis: what gathers while one is under way goes with the next.

A worker with a thousand jobs in hand waits for Redis thousands of times a second. One by one, each step has a
system call and a place in line of its own; and the line keeps all jobs in step with each other, so that
their calls leave at once and then nobody works. Here what brings a call on its way goes first.

Each script is still a step of its own in Redis, and is answered or fails by itself. Where the connection is
lost, the client's retries send the round trip anew, as they would a single script: what runs here must bear
being asked twice.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError, RedisError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from service.scripts import Script

MOST_AT_ONCE = 24
"""Scripts in one round trip: they hold up Redis for a millisecond, and one that is urgent waits so long."""
LANES = 2
"""Round trips under way at once: one is on the wire while the other is being read."""


class Urgency(IntEnum):
    """What goes first."""

    CALL = 0
    """A call is to leave."""
    BEGIN = 1
    """Another job begins: its place is free, and without a call in flight it is wasted."""
    END = 2
    """A call has ended: what came of it is written down."""


@dataclass(frozen=True, slots=True, order=True)
class _Step:
    urgency: int
    number: int
    script: Script = field(compare=False)
    keys: Sequence[str] = field(compare=False)
    args: Sequence[Any] = field(compare=False)
    answer: asyncio.Future[Any] = field(compare=False)


class Together:
    """Runs scripts for the tasks of one event loop.

    Args:
        redis: where.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiting: list[_Step] = []
        self._numbers = itertools.count()
        self._open_lanes = 0
        self._lanes: set[asyncio.Task[None]] = set()

    async def run(self, script: Script, *, keys: Sequence[str], args: Sequence[Any], urgency: Urgency) -> Any:
        """Run a script that may be asked twice; its answer. A task that is cancelled may have run it or not.

        Args:
            script: what to run.
            keys: its KEYS.
            args: its ARGV.
            urgency: what goes first, if not all can go at once.

        Raises:
            redis.RedisError: Redis cannot be asked, or the script went wrong.
        """
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, _Step(urgency, next(self._numbers), script, keys, args, answer))
        if self._open_lanes < LANES:
            self._open_lanes += 1
            lane = asyncio.create_task(self._work())
            self._lanes.add(lane)
            lane.add_done_callback(self._lanes.discard)
        return await answer

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._make_a_trip()
        finally:
            # here and not when the task is done: whoever comes in between would wait for nobody
            self._open_lanes -= 1

    async def _make_a_trip(self) -> None:
        steps: list[_Step] = []
        while self._waiting and len(steps) < MOST_AT_ONCE:
            step = heapq.heappop(self._waiting)
            if not step.answer.done():  # else whoever asked has given up
                steps.append(step)
        try:
            answers = await self._ask(steps)
        except Exception as error:  # noqa: BLE001  everyone who waits must hear of it, whatever it is
            answers = [error] * len(steps)
        for step, answer in zip(steps, answers, strict=True):
            if step.answer.done():
                continue
            if isinstance(answer, Exception):
                step.answer.set_exception(answer)
            else:
                step.answer.set_result(answer)

    async def _ask(self, steps: Sequence[_Step]) -> list[Any]:
        if len(steps) == 1:
            return [await steps[0].script(keys=steps[0].keys, args=steps[0].args)]
        async with self._redis.pipeline(transaction=False) as pipeline:
            for step in steps:
                pipeline.execute_command(
                    "EVALSHA", step.script.digest, len(step.keys), *step.keys, *step.args
                )
            answers = await pipeline.execute(raise_on_error=False)
        for index, step in enumerate(steps):
            if isinstance(answers[index], NoScriptError):
                try:
                    answers[index] = await step.script(keys=step.keys, args=step.args)
                except RedisError as error:
                    answers[index] = error  # its own: the others have been answered
        return answers
