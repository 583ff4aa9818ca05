"""The command line of the benchmarks."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from tests.bench.main_path import Figures, run_main_path


@click.group()
def bench() -> None:
    """Measure the service on this machine."""


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
    """Signed events with three rules each, through web, Redis and one worker."""
    figures = run_main_path(
        events=events, concurrency=concurrency, latency_seconds=latency_seconds, log_dir=log_dir
    )
    report("main path", figures)


def report(title: str, figures: Figures) -> None:
    """Print figures for people to stderr and as JSON to stdout."""
    table = Table(title=title, title_justify="left", box=None, show_header=False)
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), f"{value:,}")
    Console(stderr=True).print(table)
    click.echo(json.dumps(figures))


if __name__ == "__main__":
    bench()
