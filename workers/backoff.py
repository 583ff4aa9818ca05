"""How long to wait before the next call. Pure: the draw that makes waits differ is passed in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.rules import Backoff

MOST_HINT_SECONDS = 3600.0
"""A delay named by the server is kept up to an hour; after that we ask again."""
HINT_JITTER = 0.1
LEAST_SPREAD_SECONDS = 0.25
RESET_MARGIN_SECONDS = 0.02
"""Close rounds `reset`; this keeps a wait from ending a moment too early."""

# 2**1000 is still a float, and beyond any ceiling.
_MOST_DOUBLINGS = 1000


def backoff_delay_seconds(
    *, failures: int, backoff: Backoff, hint_seconds: float | None, draw: float
) -> float:
    """The pause after a failed call, in seconds.

    A delay named by the server wins, lengthened by up to 10 % so that many jobs do not return at once, and
    capped at an hour. A hint of 0 names no delay. Otherwise exponential backoff with full jitter: anything
    from 0 up to a ceiling that doubles with every failure.

    Args:
        failures: failed calls so far, this one included; from 1.
        backoff: first and highest ceiling.
        hint_seconds: the delay the server asked for, or None.
        draw: a random number, 0 <= draw < 1.

    Raises:
        ValueError: `failures` is below 1, or `draw` outside its range.
    """
    _check_draw(draw)
    if failures < 1:
        raise ValueError(f"failures must be 1 or more, not {failures}")
    if hint_seconds is not None and hint_seconds > 0:
        return min(MOST_HINT_SECONDS, hint_seconds * (1 + HINT_JITTER * draw))
    doublings = min(failures - 1, _MOST_DOUBLINGS)
    return draw * min(backoff.most_seconds, backoff.first_seconds * 2.0**doublings)


def jittered_wait_seconds(*, reset_seconds: float, draw: float) -> float:
    """The pause before a rate limit's reset has surely passed, in seconds: never shorter, slightly longer.

    Args:
        reset_seconds: until the window starts anew; 0 or more.
        draw: a random number, 0 <= draw < 1; it spreads those who wait for the same reset.

    Raises:
        ValueError: `reset_seconds` is negative or no number, or `draw` outside its range.
    """
    _check_draw(draw)
    if not reset_seconds >= 0:
        raise ValueError(f"reset_seconds must be 0 or more, not {reset_seconds}")
    spread_seconds = max(LEAST_SPREAD_SECONDS, HINT_JITTER * reset_seconds)
    return reset_seconds + RESET_MARGIN_SECONDS + draw * spread_seconds


def _check_draw(draw: float) -> None:
    if not 0 <= draw < 1:
        raise ValueError(f"draw must be at least 0 and below 1, not {draw}")
