"""Ending asyncio tasks for certain."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


async def cancel_all(tasks: Iterable[asyncio.Future[Any]], *, again_seconds: float = 0.1) -> None:
    """Cancel tasks, and again until all have ended. What they raise is not passed on.

    One cancellation may not be enough: before Python 3.12 `asyncio.wait_for`, through which redis sends its
    commands, drops one that comes just as its own work is done (https://github.com/python/cpython/issues/86296).

    Args:
        tasks: what to end.
        again_seconds: how long they may take over their clean-up, which a second cancellation would disturb.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        done, left = await asyncio.wait(left, timeout=again_seconds)
        for task in done:
            if not task.cancelled():
                task.exception()
