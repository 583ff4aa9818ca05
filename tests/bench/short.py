"""The short form of the suites, for a job that runs often: about a minute, and ratios only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.cold_start import run_cold_start
from tests.bench.ingest import Ingest, run_ingest
from tests.bench.recorded import Better, Ratio
from tests.bench.work import run_work

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.bench.figures import Figures

INGEST_PARTS = ("new", "waiting", "big", "duplicates", "forged")


def ingest_ratios() -> list[Ratio]:
    """A receiver beside the app that only reads, and one with a backlog beside one without."""
    figures = run_ingest(Ingest.short(INGEST_PARTS))
    better = {f"{part}_share_of_bare": Better.MORE for part in ("new", "big", "duplicates", "forged")}
    better |= {
        "new_share_of_bare_by_cpu": Better.MORE,
        "waiting_to_empty_rate": Better.MORE,
        "waiting_to_empty_cpu": Better.LESS,
    }
    redis_to_bare = round(figures["new_redis_cpu_ms"] / figures["new_bare_cpu_ms"], 3)
    return [
        *_picked("ingest", figures, better),
        Ratio(suite="ingest", name="new redis cpu to bare cpu", value=redis_to_bare, better=Better.LESS),
    ]


def work_ratios() -> list[Ratio]:
    """A worker's rounds beside what latency and RQ allow, and its CPU time beside RQ's."""
    figures = run_work(jobs_a_round=900, concurrency=300, latency_seconds=0.5)
    cpu = round(figures["worker_cpu_ms_per_job"] / figures["rq_stock_cpu_ms_per_job"], 3)
    return [
        *_picked("work", figures, {"elapsed_to_ideal": Better.LESS}),
        Ratio(suite="work", name="worker cpu to stock rq cpu", value=cpu, better=Better.LESS),
    ]


def cold_start_ratios() -> list[Ratio]:
    """How soon commands are ready, beside an app that does nothing."""
    names = ("web_to_bare", "worker_to_bare", "rules_check_to_bare")
    return _picked("cold start", run_cold_start(rounds=2), dict.fromkeys(names, Better.LESS))


SUITES: Mapping[str, Callable[[], list[Ratio]]] = {
    "ingest": ingest_ratios,
    "work": work_ratios,
    "cold start": cold_start_ratios,
}
"""By the suite's name in `Ratio`."""


def _picked(suite: str, figures: Figures, better: Mapping[str, Better]) -> list[Ratio]:
    return [
        Ratio(suite=suite, name=name.replace("_", " "), value=figures[name], better=way)
        for name, way in better.items()
    ]
