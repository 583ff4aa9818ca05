"""What tests and the benchmark of backfills share: many old leads, and the command beside a stack."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from stack_parts import PROJECT

from service import keys
from service.redis_text import texts
from service.sandbox.ids import new_id, record_time
from workers.backfill_run import Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from stack import Stack

    from service.sandbox.world import World

LONG_AGO_SECONDS = timedelta(days=400).total_seconds()


def add_old_leads(world: World, count: int, *, clump: int = 7, **values: Any) -> list[str]:
    """Put leads of the last 400 days into the world, without events; their ids, oldest first.

    Args:
        world: where.
        count: how many.
        clump: so many at a time have the very same date of creation.
        values: more attributes of each.
    """
    organization, now = world.organization, world.clock()
    made = []
    for number in range(count):
        moment = record_time(now - LONG_AGO_SECONDS * (1 - number // clump * clump / (count + clump)) - 60)
        lead_id = new_id("lead", world.random)
        world.leads[lead_id] = {
            "id": lead_id,
            "organization_id": organization.id,
            "name": f"Brindlemoor Joinery {number}",
            "display_name": f"Brindlemoor Joinery {number}",
            "url": "https://brindlemoor.example",
            "status_id": next(iter(organization.statuses)),
            "contact_ids": [],
            "date_created": moment,
            "date_updated": moment,
            **values,
        }
        made.append(lead_id)
    return made


def remembers_for_long(stack: Stack) -> None:
    """As if Redis had been running for years: after a loss, calls from before it would be waited for."""
    stack.redis.set(keys.SINCE, 1)


def backfill(stack: Stack, *arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run `close-enrich backfill` to its end beside a stack."""
    environ = {**stack.processes.environ, "LOG_LEVEL": "warning", "NO_COLOR": "1", "COLUMNS": "110"}
    return subprocess.run(
        [sys.executable, "-m", "service.cli.main", "backfill", *arguments],
        env={**environ, **settings},
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def newest_run(stack: Stack) -> Run | None:
    """The backfill that was begun last, or None."""
    (run_id,) = texts(stack.redis.zrange(keys.BACKFILLS, -1, -1)) or [""]
    raw = stack.redis.hget(keys.backfill(run_id), "run")
    return None if raw is None else msgspec.json.decode(raw, type=Run)


def killed_once(stack: Stack, when: Callable[[Run], bool], *arguments: str) -> None:
    """Start the command and kill it as soon as its run is so."""
    stack.processes.start("backfill", "backfill", *(arguments or ("--all",)), "--yes", "--json")

    def come_so_far() -> bool:
        run = newest_run(stack)
        return run is not None and when(run)

    stack.wait(come_so_far, seconds=120)
    stack.processes.kill("backfill")
