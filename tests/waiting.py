"""Waiting for a condition with a deadline: it fails loudly, and costs no more time than it takes."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

PAUSE_SECONDS = 0.005
PATIENCE_SECONDS = 60.0
"""For what takes a moment, on a machine that does much else: only what never comes takes so long."""


def wait_until(condition: Callable[[], T], *, seconds: float = PATIENCE_SECONDS) -> T:
    """The condition's first true answer.

    Raises:
        TimeoutError: it did not become true in time.
    """
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"still {answer!r} after {seconds} s")
        time.sleep(PAUSE_SECONDS)
    return answer


async def eventually(condition: Callable[[], Awaitable[T]], *, seconds: float = PATIENCE_SECONDS) -> T:
    """The first true answer of a condition that is awaited.

    Raises:
        TimeoutError: it did not become true in time.
    """
    deadline = time.monotonic() + seconds
    while not (answer := await condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"still {answer!r} after {seconds} s")
        await asyncio.sleep(PAUSE_SECONDS)
    return answer
