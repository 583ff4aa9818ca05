"""What a worker counts of an enrichment that leaves its hands."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from service.enrichment import State
from service.jobs import BULK_QUEUE
from service.metrics_catalogue import CALL_SECONDS, DONE, LEAD_TO_FILLED_SECONDS, PAID, WAITS
from service.transitions import Settlement
from workers.noting import note_end

if TYPE_CHECKING:
    from service.enrichment import Entry
    from service.meter import Meter
    from service.transitions import Postponement
    from workers.outcome import Outcome
    from workers.tools import Progress

FILLED = frozenset({State.FILLED, State.CONFIRMED})

_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")


def count_call(meter: Meter, outcome: Outcome, *, seconds: float) -> None:
    """Count a call to Close, by what came back and how long it took."""
    meter.observe(CALL_SECONDS, seconds, outcome=_CAPITAL.sub("_", type(outcome).__name__).lower())


def count_end(
    meter: Meter,
    entry: Entry,
    then: Settlement | Postponement,
    progress: Progress,
    *,
    kept: bool,
    now_ms: int,
) -> None:
    """Count how an enrichment ended or why it waits, and its call if Close may have charged for it.

    The same is noted on its execution, for tracing.

    Args:
        meter: counts.
        entry: as it was taken in hand.
        then: what became of it.
        progress: tells whether Close was asked.
        kept: the ledger took it; False where somebody else holds the enrichment by now.
        now_ms: the time.
    """
    note_end(progress.step, then, kept=kept)
    if progress.asking and not then.uncalled:
        meter.count(PAID, rule=entry.rule)
    if not kept:
        return
    if not isinstance(then, Settlement):
        meter.count(WAITS, cause=then.cause)
        return
    meter.count(DONE, rule=entry.rule, outcome=then.state)
    if then.state in FILLED:
        seconds = (now_ms - entry.planned_ms) / 1000
        lane = "bulk" if entry.queue == BULK_QUEUE else "live"
        meter.observe(LEAD_TO_FILLED_SECONDS, seconds, rule=entry.rule, lane=lane)
