"""Reading pages of Close's event log: behind all other readers, and patient with a Close that is away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workers.log_walk import DeadCursor, Page, TooLong, Unread, read_page
from workers.patient import PatientReader
from workers.tools import READ_GROUP

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from random import Random

    from service.brakes import Brakes
    from workers.close_api import CloseApi
    from workers.log_walk import Pair, Walk
    from workers.throttle import Throttle


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
        self._reader = PatientReader(pace=pace, group=READ_GROUP, brakes=brakes, random=random, pause=pause)

    async def read(self, pair: Pair, walk: Walk) -> Page | DeadCursor | TooLong | Unread:
        """The page that a walk needs next. A 429 is waited out and is no failed try.

        Raises:
            redis.RedisError: Redis stayed away for longer than its client retries.
        """
        return await self._reader.read(
            lambda: self._api.get_log_page(
                object_type=pair.object_type, action=pair.action, filters=walk.filters()
            ),
            lambda result: read_page(result, with_cursor=walk.cursor is not None),
        )
