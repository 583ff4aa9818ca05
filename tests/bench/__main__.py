"""The command line of the benchmarks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Literal

import click
from rich.console import Console
from rich.table import Table

# the tests' helpers import each other by their bare names, as pytest has it
sys.path.insert(0, str(Path(__file__).parent.parent))

from service.log import configure_logging
from tests.bench.backfill import run_backfill_bench
from tests.bench.cold_start import run_cold_start
from tests.bench.dashboard import run_dashboard
from tests.bench.flat import run_flat
from tests.bench.idle import run_idle_latency
from tests.bench.main_path import run_main_path
from tests.bench.memory import run_memory, servers
from tests.bench.money import run_budget, run_paid_once
from tests.bench.pace import Course, matrix, run_pace
from tests.bench.receiver_commands import ingest, scale_cost
from tests.bench.scale import Climb, NoNetworkError, run_scale
from tests.bench.short_command import short
from tests.bench.tables import report, report_all
from tests.bench.work import run_work


@click.group()
def bench() -> None:
    """Measure the service on this machine."""
    configure_logging(log_format="console", level="warning", secrets=())


@bench.command("main-path")
@click.option("--events", type=click.IntRange(min=1), default=1000, show_default=True)
@click.option("--concurrency", type=click.IntRange(1, 10_000), default=500, show_default=True)
@click.option(
    "--latency",
    "latency_seconds",
    type=click.FloatRange(min=0.01),
    default=2.0,
    show_default=True,
    help="Seconds one call takes.",
)
@click.option("--log-dir", type=click.Path(path_type=Path, file_okay=False), help="Keep the logs here.")
def main_path(events: int, concurrency: int, latency_seconds: float, log_dir: Path | None) -> None:
    """Signed events with three rules each, through web, Redis and a worker that has made its first calls."""
    figures = run_main_path(
        events=events, concurrency=concurrency, latency_seconds=latency_seconds, log_dir=log_dir
    )
    report("main path", figures)


@bench.command("work")
@click.option("--jobs", "jobs_a_round", type=click.IntRange(min=3), default=6000, show_default=True)
@click.option("--concurrency", type=click.IntRange(1, 10_000), default=1000, show_default=True)
@click.option(
    "--latency",
    "latency_seconds",
    type=click.FloatRange(min=0.01),
    default=2.0,
    show_default=True,
    help="Seconds one call takes.",
)
@click.option("--log-dir", type=click.Path(path_type=Path, file_okay=False), help="Keep the logs here.")
def work(jobs_a_round: int, concurrency: int, latency_seconds: float, log_dir: Path | None) -> None:
    """Jobs that are in line already, through one worker; beside RQ's worker pool in as much memory."""
    figures = run_work(
        jobs_a_round=jobs_a_round, concurrency=concurrency, latency_seconds=latency_seconds, log_dir=log_dir
    )
    report("work", figures)


@bench.command("idle-latency")
@click.option("--leads", type=click.IntRange(min=10), default=200, show_default=True)
def idle_latency(leads: int) -> None:
    """From a new lead's webhook to the call for its field, one lead at a time."""
    report("idle latency", run_idle_latency(leads=leads))


@bench.command("pace")
@click.option("--rate", type=click.FloatRange(min=0.1), default=20.0, show_default=True, help="Per second.")
@click.option("--burst", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--calls", type=click.IntRange(min=2), default=600, show_default=True)
@click.option("--workers", type=click.IntRange(1, 50), default=3, show_default=True)
@click.option(
    "--reset",
    type=click.Choice(["full", "next"]),
    default="full",
    show_default=True,
    help="What `reset` counts down to: the bucket full again, or the next call.",
)
@click.option("--change-to", type=click.FloatRange(min=0.1), help="The rate after half of the calls.")
@click.option("--all", "run_all", is_flag=True, help="Run all rates and bursts that are promised.")
@click.option("--log-dir", type=click.Path(path_type=Path, file_okay=False), help="Keep the logs here.")
def pace(
    *,
    rate: float,
    burst: int,
    calls: int,
    workers: int,
    reset: Literal["full", "next"],
    change_to: float | None,
    run_all: bool,
    log_dir: Path | None,
) -> None:
    """Planned enrichments through several workers, against a limit that Close's headers tell."""
    if run_all:
        runs = []
        for one in matrix():
            runs.append(run_pace(one))
            click.echo(json.dumps(runs[-1]), err=True)
        report_all("pace", runs)
        return
    course = Course(
        rate_per_second=rate, burst=burst, calls=calls, workers=workers, reset=reset, change_to=change_to
    )
    report("pace", run_pace(course, log_dir=log_dir))


@bench.command("cold-start")
@click.option("--rounds", type=click.IntRange(min=1), default=9, show_default=True)
def cold_start(rounds: int) -> None:
    """How soon commands are ready after their process starts; beside an app that does nothing."""
    report("cold start", run_cold_start(rounds=rounds))


@bench.command("paid-once")
@click.option("--leads", type=click.IntRange(min=1), default=250, show_default=True, help="Of four fields.")
@click.option("--workers", type=click.IntRange(1, 50), default=3, show_default=True)
def paid_once(leads: int, workers: int) -> None:
    """Enrichments of which one call in five ends unclearly after its value was saved."""
    report("paid once", run_paid_once(leads=leads, workers=workers))


@bench.command("budget")
@click.option("--planned", type=click.IntRange(min=2), default=2000, show_default=True)
@click.option("--per-day", type=click.IntRange(min=1), default=500, show_default=True)
@click.option("--workers", type=click.IntRange(1, 50), default=6, show_default=True)
def budget(planned: int, per_day: int, workers: int) -> None:
    """More enrichments than a day's budget allows, and the day after."""
    if planned < 2 * per_day:
        raise click.UsageError(f"--planned is {planned}; expected at least twice --per-day")
    report("budget", run_budget(planned=planned, per_day=per_day, workers=workers))


@bench.command("memory")
@click.option("--entries", type=click.IntRange(min=3), default=30_000, show_default=True)
def memory(entries: int) -> None:
    """What an enrichment takes of Redis's memory, on each server there is here."""
    found = dict(run_memory(binary, entries=entries) for binary in servers())
    table = Table(title="memory", title_justify="left", box=None)
    for name in ("", *found):
        table.add_column(name, justify="right" if name else "left")
    for name in next(iter(found.values())):
        table.add_row(name.replace("_", " "), *(f"{figures[name]:,}" for figures in found.values()))
    Console(stderr=True).print(table)
    click.echo(json.dumps(found))


@bench.command("flat")
@click.option("--seconds", type=click.FloatRange(min=5), default=300.0, show_default=True)
@click.option(
    "--pace", type=click.FloatRange(min=0.1), default=20.0, show_default=True, help="Calls a second."
)
@click.option("--times", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="The pace.")
@click.option("--log-dir", type=click.Path(path_type=Path, file_okay=False), help="Keep the logs here.")
def flat(seconds: float, pace: float, times: float, log_dir: Path | None) -> None:
    """Signed events at many times the worker's pace, and the memory of web, worker and Redis meanwhile."""
    report("flat", run_flat(seconds=seconds, pace_per_second=pace, times=times, log_dir=log_dir))


@bench.command("backfill")
@click.option("--leads", type=click.IntRange(min=1000), default=25_000, show_default=True, help="Old ones.")
@click.option("--workers", type=click.IntRange(1, 50), default=2, show_default=True)
@click.option("--rate", type=click.FloatRange(min=1), default=60.0, show_default=True, help="Calls a second.")
@click.option(
    "--latency",
    "latency_seconds",
    type=click.FloatRange(min=0.001),
    default=2.0,
    show_default=True,
    help="Seconds one call takes.",
)
@click.option("--log-dir", type=click.Path(path_type=Path, file_okay=False), help="Keep the logs here.")
def backfill(*, leads: int, workers: int, rate: float, latency_seconds: float, log_dir: Path | None) -> None:
    """Old leads filled by a command that is killed three times, and how quick new leads are meanwhile."""
    figures = run_backfill_bench(
        leads=leads, workers=workers, rate_per_second=rate, latency_seconds=latency_seconds, log_dir=log_dir
    )
    report("backfill", figures)


@bench.command("dashboard")
@click.option("--entries", type=click.IntRange(min=0), default=1_000_000, show_default=True)
@click.option("--history", type=click.IntRange(min=0), default=100_000, show_default=True)
def dashboard(entries: int, history: int) -> None:
    """Server time of the dashboard's pages."""
    report("dashboard", run_dashboard(entries=entries, history=history))


@bench.command("scale")
@click.option("--concurrency", type=click.IntRange(1, 1000), default=4, show_default=True)
@click.option(
    "--latency",
    "latency_seconds",
    type=click.FloatRange(min=0.01),
    default=0.5,
    show_default=True,
    help="Seconds one call takes.",
)
@click.option("--rate", type=click.FloatRange(min=1), default=50.0, show_default=True, help="Per second.")
@click.option("--seconds", type=click.FloatRange(min=1), default=15.0, show_default=True, help="Of each run.")
def scale(concurrency: int, latency_seconds: float, rate: float, seconds: float) -> None:
    """One, two, four and eight workers in four network namespaces, and one limit of Close's. Needs root."""
    climb = Climb(
        concurrency=concurrency, latency_seconds=latency_seconds, rate_per_second=rate, seconds=seconds
    )
    try:
        report_all("scale", run_scale(climb))
    except NoNetworkError as error:
        raise click.UsageError(str(error)) from None


for command in (ingest, scale_cost, short):
    bench.add_command(command)


if __name__ == "__main__":
    bench()
