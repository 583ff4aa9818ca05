"""Throughput by the number of workers on several machines, up to what Close allows for all of them."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from network_box import EVERYWHERE, inside, network, serve_redis_to_far, start_worker, why_not
from stack import lively_world, running

from service.brakes import PERSON
from service.sandbox.control import add_invented_leads
from service.sandbox.options import Limit
from tests.bench.figures import Figures, TookTooLongError
from tests.bench.pace import ENRICH, RULES, RULES_OF_A_LEAD

if TYPE_CHECKING:
    from network_box import Network
    from stack import Stack

LOOK_EVERY_SECONDS = 0.2
WARM_UP_SECONDS = 3.0
"""Until Close has answered first calls, nobody knows how fast it lets us call, and workers go slowly."""


class NoNetworkError(Exception):
    """There can be no network namespaces here; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Climb:
    """One run for each number of workers.

    Attributes:
        workers: how many, in the order in which they are tried.
        machines: over which they are spread.
        concurrency: of each worker.
        latency_seconds: what one call takes.
        rate_per_second: what Close allows for all together.
        seconds: how long each run is measured.
    """

    workers: tuple[int, ...] = (1, 2, 4, 8)
    machines: int = 4
    concurrency: int = 4
    latency_seconds: float = 0.5
    rate_per_second: float = 50.0
    seconds: float = 15.0

    def ceiling(self, workers: int) -> float:
        """Calls a second that so many workers can make at most: by their places, or by Close's limit."""
        return min(self.rate_per_second, workers * self.concurrency / self.latency_seconds)


def run_scale(climb: Climb) -> list[Figures]:
    """Measure each number of workers, with a Redis, a sandbox and a web of its own in the hub.

    Raises:
        NoNetworkError: see there.
        TookTooLongError: see there.
    """
    reason = why_not()
    if reason is not None:
        raise NoNetworkError(reason)
    runs: list[Figures] = []
    for workers in climb.workers:
        with network(climb.machines) as machines, inside(machines.hub):
            rate = _calls_per_second(climb, workers, machines)
        alone = rate if not runs else runs[0]["_calls_per_second"]
        runs.append(
            {
                "workers": workers,
                "machines": min(workers, climb.machines),
                "times_the_first": round(rate / alone, 2),
                "share_of_own_ceiling": round(rate / climb.ceiling(workers), 3),
                "share_of_closes_limit": round(rate / climb.rate_per_second, 3),
                "_calls_per_second": rate,
            }
        )
    return [{name: value for name, value in run.items() if not name.startswith("_")} for run in runs]


def _calls_per_second(climb: Climb, workers: int, machines: Network) -> float:
    seconds = WARM_UP_SECONDS + climb.seconds
    leads = math.ceil(climb.ceiling(workers) * (seconds + 2 * climb.latency_seconds) * 1.2 / RULES_OF_A_LEAD)
    world = lively_world(
        latency_min_seconds=climb.latency_seconds,
        latency_max_seconds=climb.latency_seconds,
        limits={ENRICH: Limit(rate_per_second=climb.rate_per_second, burst=math.ceil(climb.rate_per_second))},
    )
    with (
        tempfile.TemporaryDirectory() as directory,
        running(
            Path(directory),
            rules=RULES,
            world=world,
            workers=0,
            sandbox_host=EVERYWHERE,
            WORKER_CONCURRENCY=climb.concurrency,
            LOG_LEVEL="info",
        ) as stack,
    ):
        serve_redis_to_far(stack)
        stack.ask(lambda ledger: ledger.brakes.halt(reason="all shall begin at once", kind=PERSON))
        stack.in_sandbox(lambda world: add_invented_leads(world, leads))
        names = [f"worker-{number}" for number in range(workers)]
        for number, name in enumerate(names):
            start_worker(stack, name, machines.far[number % climb.machines])
        stack.wait_ready(*names)
        stack.wait(lambda: stack.counts().get("planned", 0) >= leads * RULES_OF_A_LEAD, seconds=60)
        stack.ask(lambda ledger: ledger.brakes.resume())
        return _measured(stack, seconds=seconds)


def _measured(stack: Stack, *, seconds: float) -> float:
    """Calls a second from the end of the warm-up on, by when they reached Close."""
    deadline = time.monotonic() + 3 * seconds + 30
    while True:
        stack.processes.check()
        began = [call.started_at for call in stack.calls()]
        if began and began[-1] - began[0] >= seconds:
            break
        if time.monotonic() > deadline:
            raise TookTooLongError(f"{stack.counts()} after {3 * seconds + 30:.0f} s")
        time.sleep(LOOK_EVERY_SECONDS)
    counted = [moment for moment in began if began[0] + WARM_UP_SECONDS <= moment <= began[0] + seconds]
    return len(counted) / (seconds - WARM_UP_SECONDS)
