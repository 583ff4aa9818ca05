"""Backfill: many old leads filled by a command that is killed, and new leads meanwhile as quick as before."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backfill_box import add_old_leads, killed_once, newest_run, remembers_for_long
from stack import lively_world, running

from service.sandbox.control import add_invented_leads
from service.sandbox.options import Limit
from tests.bench.figures import Figures, TookTooLongError
from workers.backfill_run import Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from stack import Stack

    from service.sandbox.world import World

RULES = """
version: 1
defaults: {settle: 0s, timeout: 30s}
rules:
  - {name: Industry, object: lead, field: Industry}
"""
ENRICH = "POST enrich_field"
LIVE_EVERY_SECONDS = 0.5
LIVE_BEFORE = 120
LOOK_EVERY_SECONDS = 0.02
LAST_FILLED_SECONDS = 10.0
LIVE_UNTIL = 0.98
"""New leads count as long as this share of the old ones is not filled yet."""


class LiveLeads:
    """Makes new leads, and knows how long each took to be filled."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._made_at: dict[str, float] = {}
        self._filled_at: dict[str, float] = {}
        self._due = 0.0
        stack.in_sandbox(lambda world: world.listen(self._hear))

    def make_if_due(self) -> None:
        """Make one, if the last one is long enough ago."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + LIVE_EVERY_SECONDS
            self._stack.in_sandbox(self._make)

    def _make(self, world: World) -> None:
        made_at = world.clock()
        (lead,) = add_invented_leads(world, 1)
        self._made_at[lead["id"]] = made_at

    def _hear(self, event: dict[str, Any]) -> None:
        if event["action"] == "updated" and event["object_id"] in self._made_at:
            self._filled_at.setdefault(event["object_id"], self._stack.world.clock())

    @property
    def count(self) -> int:
        """How many were made."""
        return len(self._made_at)

    def seconds(self, first: int, last: int) -> list[float]:
        """How long those from the `first` to before the `last` took."""
        ids = list(self._made_at)[first:last]
        self._stack.wait(lambda: all(one in self._filled_at for one in ids), seconds=LAST_FILLED_SECONDS)
        return [self._filled_at[one] - self._made_at[one] for one in ids]


def run_backfill_bench(
    *, leads: int, workers: int, rate_per_second: float, latency_seconds: float, log_dir: Path | None = None
) -> Figures:
    """Fill old leads while new ones come in, killing the command in each of its stages.

    Args:
        leads: how many old ones there are.
        workers: processes.
        rate_per_second: enrichments that Close allows.
        latency_seconds: what one enrichment takes at Close.
        log_dir: where the parts' logs go; a temporary directory if None.

    Raises:
        TookTooLongError: it has not ended after three times what the limit allows.
        TimeoutError: a new lead was not filled.
    """
    world = lively_world(
        latency_min_seconds=latency_seconds,
        latency_max_seconds=latency_seconds,
        nothing_found_share=0.0,
        credits=10 * leads,
        retain_calls=False,
        limits={ENRICH: Limit(rate_per_second=rate_per_second, burst=int(rate_per_second))},
    )
    old = add_old_leads(world, leads)
    with tempfile.TemporaryDirectory() as temporary:
        directory = log_dir or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        with running(directory, rules=RULES, world=world, workers=workers, LOG_LEVEL="info") as stack:
            remembers_for_long(stack)
            return _measured(stack, old, deadline=time.monotonic() + 180 + 3 * leads / rate_per_second)


def _measured(stack: Stack, old: list[str], *, deadline: float) -> Figures:
    live = LiveLeads(stack)
    _until(lambda: live.count >= LIVE_BEFORE, stack, live, deadline)
    alone = live.seconds(10, LIVE_BEFORE)
    started_at = time.monotonic()
    killed_once(stack, lambda run: run.stage is Stage.GATHERING and run.pages > len(old) // 1000)
    killed_once(stack, lambda run: run.stage is Stage.PLANNING and run.planned_pages > len(old) // 1000)
    first = live.count
    stack.processes.start("backfill", "backfill", "--all", "--yes", "--json")
    _until(lambda: _filled(stack, live) > len(old) // 4, stack, live, deadline)
    stack.processes.kill("backfill")
    stack.processes.start("backfill", "backfill", "--all", "--yes", "--json")
    _until(lambda: _filled(stack, live) > len(old) * LIVE_UNTIL, stack, live, deadline)
    last = live.count
    meanwhile = live.seconds(first, last)
    _until(lambda: _ended(stack), stack, None, deadline)
    elapsed_seconds = time.monotonic() - started_at
    stack.processes.wait("backfill")
    log = stack.processes.log("backfill")
    told = json.loads(log[log.rindex('{\n  "backfill"') :])
    ran = stack.world.calls.ran_by_field
    field_id = stack.world.field_named("Industry").id
    runs = [ran[one, field_id] for one in old]
    announced = told["total"]["credits_at_most"]
    return {
        "leads": len(old),
        "kills": 3,
        "elapsed_seconds": round(elapsed_seconds, 1),
        "leads_enriched_once": sum(count == 1 for count in runs),
        "leads_enriched_twice": sum(count > 1 for count in runs),
        "credits_announced": announced,
        "credits_spent": sum(runs),
        "spent_to_announced": round(sum(runs) / announced, 4),
        "live_leads_alone": len(alone),
        "live_leads_meanwhile": len(meanwhile),
        "median_seconds_alone": round(statistics.median(alone), 4),
        "median_seconds_meanwhile": round(statistics.median(meanwhile), 4),
        "median_ratio": round(statistics.median(meanwhile) / statistics.median(alone), 3),
        "p95_seconds_alone": round(statistics.quantiles(alone, n=20)[-1], 4),
        "p95_seconds_meanwhile": round(statistics.quantiles(meanwhile, n=20)[-1], 4),
        "answered_429": stack.world.tally.rate_limited,
    }


def _ended(stack: Stack) -> bool:
    run = newest_run(stack)
    return run is not None and run.stage is Stage.ENDED


def _filled(stack: Stack, live: LiveLeads) -> int:
    """How many old leads are filled, roughly: new ones are quick."""
    return stack.counts().get("filled", 0) - live.count


def _until(done: Callable[[], bool], stack: Stack, live: LiveLeads | None, deadline: float) -> None:
    """Wait for something while new leads come in."""
    while not done():
        if time.monotonic() > deadline:
            raise TookTooLongError(f"{stack.counts()} after three times what the limit allows")
        if live is not None:
            live.make_if_due()
        time.sleep(LOOK_EVERY_SECONDS)
