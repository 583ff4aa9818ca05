"""Waiting for a condition with a deadline: it fails loudly, and costs no more time than it takes."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

PAUSE_SECONDS = 0.005
LOOK_SECONDS = 0.05
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


class Standstill:
    """For how long this process was not let run during the `with` block, seen by a thread that only sleeps.

    What takes longer than it may on a busy machine took so long by itself only where this says so little.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.is_set():
            due = time.monotonic() + LOOK_SECONDS
            self._over.wait(LOOK_SECONDS)
            self.seconds += max(0.0, time.monotonic() - due)
