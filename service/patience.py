"""One timer for all who wait equally long: a timer for each would cost more than what it guards."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class Patience:
    """Fails answers that have not come in time. For one event loop.

    Args:
        seconds: how long an answer may take.
        error: makes what a late answer fails with.
    """

    def __init__(self, seconds: float, error: Callable[[], Exception]) -> None:
        self._seconds = seconds
        self._error = error
        # the oldest first; those in the middle may have come already
        self._watched: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, answer: asyncio.Future[Any], loop: asyncio.AbstractEventLoop) -> None:
        """Fail this answer if it has not come in time, counted from now."""
        watched = self._watched
        while watched and watched[0][1].done():
            watched.popleft()
        due = loop.time() + self._seconds
        watched.append((due, answer))
        if self._timer is None:
            self._timer = loop.call_at(due, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Fail what is late; look again when the next may be."""
        watched = self._watched
        self._timer = None
        while watched:
            due, answer = watched[0]
            if not answer.done():
                if due > loop.time():
                    self._timer = loop.call_at(due, self._look, loop)
                    return
                answer.set_exception(self._error())
            watched.popleft()
