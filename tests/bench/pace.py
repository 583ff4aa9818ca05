"""Close's pace: planned enrichments, three workers, and how much of the allowed rate they use."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stack import lively_world, running

from service.sandbox.control import add_invented_leads
from service.sandbox.options import Limit
from tests.bench.figures import Figures, TookTooLongError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stack import Stack

RULES = """
version: 1
defaults: {settle: 0s}
rules:
  - {name: Industry, object: lead, field: Industry}
  - {name: Employee count, object: lead, field: Employee count}
  - {name: Pitch, object: lead, field: Pitch}
"""
RULES_OF_A_LEAD = 3
ENRICH = "POST enrich_field"
LATENCY_SECONDS = 0.3
LOOK_EVERY_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """One run.

    Attributes:
        rate_per_second: what Close allows.
        burst: tokens its bucket holds.
        calls: enrichments planned before the workers start.
        workers: processes.
        reset: what the header's `reset` counts down to, see `service.sandbox.options.Limit`.
        change_to: the rate after half of the calls; the bucket keeps its time to fill up. None for no change.
    """

    rate_per_second: float
    burst: int
    calls: int = 600
    workers: int = 3
    reset: Literal["full", "next"] = "full"
    change_to: float | None = None

    @property
    def limit(self) -> Limit:
        """The bucket at the start."""
        return Limit(rate_per_second=self.rate_per_second, burst=self.burst, reset=self.reset)

    @property
    def changed_limit(self) -> Limit:
        """The bucket after half of the calls."""
        rate_per_second = self.change_to or self.rate_per_second
        burst = max(1, round(self.burst * rate_per_second / self.rate_per_second))
        return Limit(rate_per_second=rate_per_second, burst=burst, reset=self.reset)


def matrix() -> Iterator[Course]:
    """Rates of 5, 20 and 60 a second; full again within 0.25, 1 and 10 s; and limits that change."""
    for rate, full_again_seconds in product((5, 20, 60), (0.25, 1, 10)):
        burst = math.ceil(rate * full_again_seconds)
        # 40 s at most at the rate itself, beyond what the bucket lets through besides
        yield Course(rate_per_second=rate, burst=burst, calls=min(600, 40 * rate) + 2 * burst)
    for before, after in ((20, 5), (5, 20), (20, 60), (60, 20)):
        yield Course(rate_per_second=before, burst=before, change_to=after)


def run_pace(course: Course, *, log_dir: Path | None = None) -> Figures:
    """Plan all enrichments, start the workers, and measure until every field is filled.

    Args:
        course: what to run.
        log_dir: where the parts' logs go; a temporary directory if None.

    Raises:
        TookTooLongError: not all fields were filled in three times what the limit allows.
    """
    with tempfile.TemporaryDirectory() as temporary:
        directory = log_dir or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        world = lively_world(
            latency_min_seconds=LATENCY_SECONDS,
            latency_max_seconds=LATENCY_SECONDS,
            limits={ENRICH: course.limit},
        )
        # each worker takes its share, and none can take it all
        concurrency = math.ceil(course.calls / course.workers)
        with running(
            directory, rules=RULES, world=world, workers=0, WORKER_CONCURRENCY=concurrency, LOG_LEVEL="info"
        ) as stack:
            return _measured(stack, course)


def _measured(stack: Stack, course: Course) -> Figures:
    leads = math.ceil(course.calls / RULES_OF_A_LEAD)
    jobs = leads * RULES_OF_A_LEAD
    stack.in_sandbox(lambda world: add_invented_leads(world, leads))
    slowest = min(course.rate_per_second, course.change_to or course.rate_per_second)
    deadline = time.monotonic() + 60 + 3 * jobs / slowest
    _wait_for(stack, "planned", jobs, deadline)
    for number in range(course.workers):
        stack.start_worker(f"worker-{number}")
    changed_at = math.inf
    while stack.counts().get("filled", 0) < jobs:
        _look(stack, deadline)
        if course.change_to is not None and changed_at == math.inf and stack.world.calls.requests >= jobs / 2:
            changed_at = stack.in_sandbox(lambda world: _change(world, course.changed_limit))
    made = stack.calls()
    first_at, last_at = made[0].started_at, made[-1].started_at
    split_at = min(changed_at, last_at)
    allowed = course.rate_per_second * (split_at - first_at)
    allowed += course.changed_limit.rate_per_second * (last_at - split_at)
    refused = stack.world.tally.rate_limited
    return {
        "rate_per_second": course.rate_per_second,
        "change_to": course.change_to or course.rate_per_second,
        "burst": course.burst,
        "full_again_seconds": round(course.burst / course.rate_per_second, 3),
        "workers": course.workers,
        "calls": len(made),
        "most_calls_of_a_field": stack.world.calls.most_runs_of_a_field,
        "elapsed_seconds": round(last_at - first_at, 2),
        "share_of_allowed_rate": round((len(made) - 1) / allowed, 4),
        "answered_429": refused,
        "share_of_429": round(refused / (len(made) + refused), 5),
    }


def _change(world: Any, limit: Limit) -> float:
    world.configure(replace(world.options, limits={ENRICH: limit}))
    return float(world.clock())


def _wait_for(stack: Stack, state: str, count: int, deadline: float) -> None:
    while stack.counts().get(state, 0) < count:
        _look(stack, deadline)


def _look(stack: Stack, deadline: float) -> None:
    stack.processes.check()
    if time.monotonic() > deadline:
        raise TookTooLongError(f"{stack.counts()} after three times what the limit allows")
    time.sleep(LOOK_EVERY_SECONDS)
