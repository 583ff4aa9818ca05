"""Load at many times the worker's pace: what waits grows in Redis, and no process does."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression, median
from typing import TYPE_CHECKING

from stack import lively_world, running

from service import keys
from service.sandbox.control import add_invented_leads
from tests.bench.measure import MB, memory_mb

if TYPE_CHECKING:
    from stack import Stack

    from tests.bench.figures import Figures

RULES = """
version: 1
defaults: {settle: 0s}
rules:
  - {name: Industry, object: lead, field: Industry}
  - {name: Employee count, object: lead, field: Employee count}
  - {name: Pitch, object: lead, field: Pitch}
"""
RULES_OF_A_LEAD = 3
PARTS = 5
"""Memory is compared between parts of the run: the first one is for warming up."""

PROCESSES = ("web", "worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Memory at one moment, in millions of bytes; `redis_mb` without the history, which is capped."""

    at_seconds: float
    web_mb: float
    worker_mb: float
    redis_mb: float
    planned: int
    waiting: int


def run_flat(
    *,
    seconds: float,
    pace_per_second: float,
    times: float,
    every_seconds: float = 1.0,
    log_dir: Path | None = None,
) -> Figures:
    """Have leads made in the sandbox, which delivers signed events to web, and look at all parts' memory.

    Args:
        seconds: how long.
        pace_per_second: calls that the worker may make.
        times: how many times that are planned.
        every_seconds: how often to look.
        log_dir: where the parts' logs go; a temporary directory if None.

    Raises:
        RuntimeError: a process has ended.
    """
    with tempfile.TemporaryDirectory() as temporary:
        directory = log_dir or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        with running(
            directory,
            rules=RULES,
            world=lively_world(retain_calls=False),
            MAX_CALLS_PER_SECOND=pace_per_second,
            LOG_LEVEL="warning",
        ) as stack:
            samples = _load(
                stack,
                seconds=seconds,
                leads_per_second=pace_per_second * times / RULES_OF_A_LEAD,
                every_seconds=every_seconds,
            )
            called = stack.world.calls.requests
    first, last = samples[0], samples[-1]
    lasted_seconds = last.at_seconds - first.at_seconds
    return {
        "seconds": round(lasted_seconds, 1),
        "planned": last.planned,
        "calls": called,
        "planned_to_called": round((last.planned - first.planned) / max(1, called), 2),
        "waiting_at_the_end": last.waiting,
        **{
            f"{name}_{what}": value
            for name in PROCESSES
            for what, value in _course(
                [(one.at_seconds, getattr(one, f"{name}_mb")) for one in samples]
            ).items()
        },
        "redis_mb": round(last.redis_mb, 1),
        "redis_bytes_per_planned": round(
            (last.redis_mb - first.redis_mb) * MB / max(1, last.planned - first.planned)
        ),
    }


def _load(stack: Stack, *, seconds: float, leads_per_second: float, every_seconds: float) -> list[Sample]:
    begun = time.monotonic()
    made, samples = 0, [_look(stack, 0.0)]
    while (elapsed := time.monotonic() - begun) < seconds:
        due = int(elapsed * leads_per_second) - made
        stack.in_sandbox(lambda world, count=due: add_invented_leads(world, count))
        made += due
        if elapsed - samples[-1].at_seconds >= every_seconds:
            stack.processes.check()
            samples.append(_look(stack, elapsed))
        time.sleep(min(0.1, every_seconds))
    return samples


def _look(stack: Stack, at_seconds: float) -> Sample:
    counts = stack.counts()
    history = stack.redis.memory_usage(keys.HISTORY, samples=0) or 0
    return Sample(
        at_seconds=at_seconds,
        web_mb=memory_mb(stack.processes.pid("web")),
        worker_mb=memory_mb(stack.processes.pid("worker")),
        redis_mb=(stack.redis.info("memory")["used_memory"] - history) / MB,
        planned=sum(counts.values()),
        waiting=counts.get("planned", 0) + counts.get("waiting", 0),
    )


def _course(points: list[tuple[float, float]]) -> Figures:
    """How memory went after the first part: at first, at last, their ratio, and a straight line's slope."""
    length = len(points) // PARTS
    warm = points[length:]
    second, last = (median(mb for _, mb in part) for part in (warm[:length], warm[-length:]))
    slope, _ = linear_regression(*zip(*warm, strict=True))
    return {
        "mb_second_part": round(second, 1),
        "mb_last_part": round(last, 1),
        "last_to_second": round(last / second, 4),
        "mb_per_hour": round(slope * 3600, 1),
    }
