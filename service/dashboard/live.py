"""Numbers as they change: one look at a time, shared by all browsers that listen to this process.

While anybody listens, the Overview is read every two seconds and rendered once; what has changed of it is
sent to all as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import msgspec
from redis.exceptions import RedisError
from starlette.responses import Response, StreamingResponse

from service.dashboard.headers import PRIVATE
from service.tasks import cancel_all

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from service.dashboard.access import Access, Visitor

LOOK_EVERY_SECONDS = 2.0
MOST_LISTENERS = 50
SESSION_EVERY_LOOKS = 5
"""A stream ends at most so many looks after its session has."""


class Live:
    """The looks of one process.

    Args:
        look: the page's regions as HTML, by their ids.
        report: told of an exception that a look raised.
        every_seconds: how often, while somebody listens.
    """

    def __init__(
        self,
        look: Callable[[], Awaitable[Mapping[str, str]]],
        *,
        report: Callable[[str, Exception], None],
        every_seconds: float = LOOK_EVERY_SECONDS,
    ) -> None:
        self._look = look
        self._report = report
        self._every_seconds = every_seconds
        self._regions: Mapping[str, str] = {}
        self._looks = 0
        self._changed = asyncio.Condition()
        self._listeners = 0
        self._looking: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def listeners(self) -> int:
        """How many listen."""
        return self._listeners

    @property
    def looks(self) -> int:
        """How many looks there have been."""
        return self._looks

    def response(self, visitor: Visitor, access: Access) -> Response:
        """The stream for one more listener, or 503 where there are many already."""
        if self._listeners >= MOST_LISTENERS or self._closed:
            return Response(status_code=503, headers={**PRIVATE, "retry-after": "30"})
        return StreamingResponse(
            self._events(visitor, access),
            media_type="text/event-stream",
            # some proxies hold back what streams unless told
            headers={**PRIVATE, "x-accel-buffering": "no"},
        )

    async def close(self) -> None:
        """End all streams: the process is about to stop."""
        self._closed = True
        async with self._changed:
            self._changed.notify_all()
        if self._looking is not None:
            await cancel_all([self._looking])

    async def _events(self, visitor: Visitor, access: Access) -> AsyncIterator[bytes]:
        self._listeners += 1
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._run(), name="looking for live numbers")
        sent: dict[str, str] = {}
        # the page has been read just now; the look before may be from when somebody last listened
        seen, heard = self._looks, 0
        try:
            yield b"retry: 5000\n\n"
            while not self._closed:
                async with self._changed:
                    await self._changed.wait_for(partial(self._is_news, seen))
                    seen, regions = self._looks, dict(self._regions)
                heard += 1
                if heard % SESSION_EVERY_LOOKS == 0 and not await self._stays(visitor, access):
                    return
                news = {name: html for name, html in regions.items() if sent.get(name) != html}
                sent |= news
                yield b"data: " + msgspec.json.encode(news) + b"\n\n"
        finally:
            self._listeners -= 1

    def _is_news(self, seen: int) -> bool:
        return self._looks > seen or self._closed

    async def _stays(self, visitor: Visitor, access: Access) -> bool:
        try:
            return await access.goes_on(visitor)
        except (RedisError, OSError):
            return False

    async def _run(self) -> None:
        """Look until nobody listens."""
        self._regions = {}
        while self._listeners:
            try:
                self._regions = await self._look()
            except (RedisError, OSError):
                # browsers keep what they show; the stream goes on, and tells news once there are some
                pass
            except Exception as error:  # noqa: BLE001  nobody would be told anything any more
                self._report("a look at the live numbers failed", error)
            async with self._changed:
                self._looks += 1
                self._changed.notify_all()
            await asyncio.sleep(self._every_seconds)
