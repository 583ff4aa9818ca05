"""How many of the places that work can take are kept free for what just happened in Close. Pure."""

from __future__ import annotations

SHARE_KEPT = 10
"""Bulk work leaves every tenth place free."""


def kept_for_live(places: int) -> int:
    """The places that bulk work leaves free: a tenth, at least one where there is more than one.

    Args:
        places: all there are: slots of a worker, or calls that may be in flight.
    """
    return max(1, places // SHARE_KEPT) if places > 1 else 0
