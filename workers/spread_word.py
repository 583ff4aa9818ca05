"""Telling all workers what one of them has learned from Close."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workers.conclusion import Conclusion
    from workers.tools import Tools


async def spread_word(
    conclusion: Conclusion, tools: Tools, *, group: str, asked_ms: int | None = None
) -> None:
    """Park an endpoint group after a 429, halt all calls after a refused key or used-up credits.

    Args:
        conclusion: of the call.
        tools: of the worker.
        group: the call's endpoint group.
        asked_ms: when the call was made, by Redis's clock; None where that is of no account.
    """
    if conclusion.park_seconds is not None:
        await tools.ledger.brakes.park(group, seconds=conclusion.park_seconds)
        tools.log.info("rate limited", group=group, seconds=round(conclusion.park_seconds, 3))
    if conclusion.halt is not None:
        reason, kind = conclusion.halt
        if await tools.ledger.brakes.halt(reason=reason, kind=kind, asked_ms=asked_ms):
            tools.log.error("halted all calls", reason=reason, kind=kind)
