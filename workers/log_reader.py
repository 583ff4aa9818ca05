"""Reading pages of Close's event log: behind all other readers, and patient with a Close that is away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.rules import Backoff
from workers.backoff import backoff_delay_seconds, jittered_wait_seconds
from workers.log_walk import DeadCursor, Page, TooLong, Unread, read_page
from workers.outcome import RateLimited, Retry
from workers.ratelimit_header import parse_rate_limit
from workers.reply import Reply
from workers.tools import READ_GROUP

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from random import Random

    from service.brakes import Brakes
    from workers.close_api import CloseApi
    from workers.log_walk import Pair, Walk
    from workers.throttle import Throttle

TRIES = 5
"""How often one page is asked for before the walk is put off."""

PATIENCE = Backoff(first_seconds=2.0, most_seconds=30.0)


class LogReader:
    """Reads the event log at Close's pace.

    Args:
        api: asks Close.
        pace: of the read group; what is waited for here gives way to live reads.
        brakes: where a 429 is told to all.
        random: spreads waits.
        pause: waits so many seconds.
    """

    def __init__(
        self,
        api: CloseApi,
        *,
        pace: Throttle,
        brakes: Brakes,
        random: Random,
        pause: Callable[[float], Awaitable[None]],
    ) -> None:
        self._api = api
        self._pace = pace
        self._brakes = brakes
        self._random = random
        self._pause = pause

    async def read(self, pair: Pair, walk: Walk) -> Page | DeadCursor | TooLong | Unread:
        """The page that a walk needs next. A 429 is waited out and is no failed try.

        Raises:
            redis.RedisError: Redis stayed away for longer than its client retries.
        """
        failures = 0
        while True:
            turn = await self._pace.permit(bulk=True)
            result = await self._api.get_log_page(
                object_type=pair.object_type, action=pair.action, filters=walk.filters()
            )
            reading = read_page(result, with_cursor=walk.cursor is not None)
            limited = isinstance(reading, RateLimited)
            if isinstance(result, Reply):
                await self._pace.heard(turn, parse_rate_limit(result.headers), refused=limited)
            if isinstance(reading, RateLimited):
                seconds = jittered_wait_seconds(
                    reset_seconds=reading.wait_seconds, draw=self._random.random()
                )
                await self._brakes.park(READ_GROUP, seconds=seconds)
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
