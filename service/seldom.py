"""Log lines that anybody can cause: so many in a second and no more, lest a storm fill the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger


class Seldom:
    """Warns at most so often in a second. The first line after a pause says how many were left out.

    Args:
        log: where lines go.
        most_per_second: how many.
        clock: seconds; only whole ones matter.
    """

    def __init__(
        self, log: FilteringBoundLogger, *, most_per_second: int, clock: Callable[[], float]
    ) -> None:
        self._log = log
        self._most = most_per_second
        self._clock = clock
        self._second = 0
        self._told = 0
        self._left_out = 0

    def warning(self, event: str, **facts: object) -> None:
        """Say it, or count it as left out."""
        second = int(self._clock())
        if second != self._second:
            self._second, self._told = second, 0
        if self._told >= self._most:
            self._left_out += 1
            return
        self._told += 1
        if self._left_out:
            facts["left_out_before"], self._left_out = self._left_out, 0
        self._log.warning(event, **facts)
