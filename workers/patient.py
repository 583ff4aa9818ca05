"""Reading from Close behind all other readers, and patiently: whoever reads so is in no hurry."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from service.rules import Backoff
from workers.backoff import backoff_delay_seconds, jittered_wait_seconds
from workers.log_walk import Unread
from workers.outcome import RateLimited, Retry
from workers.ratelimit_header import parse_rate_limit
from workers.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from random import Random

    from service.brakes import Brakes
    from workers.reply import Failure
    from workers.throttle import Throttle

Reading = TypeVar("Reading")

TRIES = 5
"""How often the same thing is asked for before it is given up."""

PATIENCE = Backoff(first_seconds=2.0, most_seconds=30.0)


class PatientReader:
    """Asks at Close's pace, and again where asking again may help.

    Args:
        pace: of the endpoint group; what is waited for here gives way to live reads.
        group: that group, for parking.
        brakes: where a 429 is told to all.
        random: spreads waits.
        pause: waits so many seconds.
    """

    def __init__(
        self,
        *,
        pace: Throttle,
        group: str,
        brakes: Brakes,
        random: Random,
        pause: Callable[[float], Awaitable[None]],
    ) -> None:
        self._pace = pace
        self._group = group
        self._brakes = brakes
        self._random = random
        self._pause = pause

    async def read(
        self,
        ask: Callable[[], Awaitable[Reply | Failure]],
        understand: Callable[[Reply | Failure], Reading | RateLimited | Retry],
    ) -> Reading | Unread:
        """What a call to Close comes to. A 429 is waited out and is no failed try.

        Args:
            ask: makes the call; it must be one that may be repeated.
            understand: tells what its answer means.

        Raises:
            redis.RedisError: Redis stayed away for longer than its client retries.
        """
        failures = 0
        while True:
            turn = await self._pace.permit(bulk=True)
            result = await ask()
            reading = understand(result)
            if isinstance(result, Reply):
                limited = isinstance(reading, RateLimited)
                await self._pace.heard(turn, parse_rate_limit(result.headers), refused=limited)
            if isinstance(reading, RateLimited):
                seconds = jittered_wait_seconds(
                    reset_seconds=reading.wait_seconds, draw=self._random.random()
                )
                await self._brakes.park(self._group, seconds=seconds)
            elif isinstance(reading, Retry):
                failures += 1
                if failures >= TRIES:
                    return Unread(reason=reading.reason)
                await self._pause(
                    backoff_delay_seconds(
                        failures=failures,
                        backoff=PATIENCE,
                        hint_seconds=reading.hint_seconds,
                        draw=self._random.random(),
                    )
                )
            else:
                return reading
