"""Money: nothing is paid for twice, and no budget is exceeded."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from money_box import (
    SIX_FIELDS,
    EveryFifth,
    all_ended,
    all_wait,
    plan,
    rules_for,
    turn_windows,
    zone_where_it_is_noon,
)
from stack import lively_world, running

if TYPE_CHECKING:
    from tests.bench.figures import Figures

RULES_OF_A_LEAD = 4
PATIENCE_SECONDS = 600.0


def run_paid_once(*, leads: int, workers: int) -> Figures:
    """Four fields for each lead, every fifth call ending unclearly after its value was saved.

    Args:
        leads: how many are made.
        workers: processes.

    Raises:
        TimeoutError: not all has ended after ten minutes.
    """
    world = lively_world()
    world.faults = EveryFifth()
    with (
        tempfile.TemporaryDirectory() as directory,
        running(
            Path(directory),
            rules=rules_for(*SIX_FIELDS[:RULES_OF_A_LEAD], timeout="1s"),
            world=world,
            workers=workers,
            LOG_LEVEL="info",
        ) as stack,
    ):
        started_at = time.monotonic()
        plan(stack, leads=leads, rules=RULES_OF_A_LEAD, seconds=PATIENCE_SECONDS)
        ended = all_ended(stack, seconds=PATIENCE_SECONDS)
        return {
            "enrichments": leads * RULES_OF_A_LEAD,
            "workers": workers,
            "calls": world.calls.requests,
            "ambiguous": sum(call.fault is not None for call in stack.calls()),
            "confirmed": ended.get("confirmed", 0),
            "filled": ended.get("filled", 0),
            "paid_twice": sum(runs > 1 for runs in world.calls.ran_by_field.values()),
            "elapsed_seconds": round(time.monotonic() - started_at, 2),
        }


def run_budget(*, planned: int, per_day: int, workers: int) -> Figures:
    """More enrichments than a day's budget allows; then the day turns, once.

    Args:
        planned: how many.
        per_day: credits; twice as many are at most `planned`.
        workers: processes.

    Raises:
        TimeoutError: the budget was not used up after ten minutes.
    """
    with (
        tempfile.TemporaryDirectory() as directory,
        running(
            Path(directory),
            rules=rules_for("Industry", budget=f"budget: {{per_day: {per_day}}}"),
            workers=workers,
            BUDGET_TIMEZONE=zone_where_it_is_noon(),
            LOG_LEVEL="info",
        ) as stack,
    ):
        started_at = time.monotonic()
        calls = []
        plan(stack, leads=planned, seconds=PATIENCE_SECONDS)
        for left in (planned - per_day, planned - 2 * per_day):
            all_wait(stack, lambda reason: "budget" in reason, count=left, seconds=PATIENCE_SECONDS)
            calls.append(stack.world.calls.requests)
            turn_windows(stack)
        return {
            "planned": planned,
            "per_day": per_day,
            "workers": workers,
            "calls_on_the_first_day": calls[0],
            "calls_on_the_second_day": calls[1] - calls[0],
            "most_calls_of_a_field": stack.world.calls.most_runs_of_a_field,
            "elapsed_seconds": round(time.monotonic() - started_at, 2),
        }
