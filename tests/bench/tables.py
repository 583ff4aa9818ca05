"""Figures as people read them, on stderr, and as JSON on stdout."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.bench.figures import Figures


def report(title: str, figures: Figures) -> None:
    """Print the figures of a run."""
    table = Table(title=title, title_justify="left", box=None, show_header=False)
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), f"{value:,}")
    Console(stderr=True).print(table)
    click.echo(json.dumps(figures))


def report_all(title: str, runs: Sequence[Figures]) -> None:
    """Print the figures of several runs, a line each."""
    _print_rows(title, runs)
    click.echo(json.dumps(runs))


def report_tables(tables: Mapping[str, Sequence[Figures]]) -> None:
    """Print several tables of several runs by their titles, and all as one JSON object."""
    for title, runs in tables.items():
        _print_rows(title, runs)
    click.echo(json.dumps(tables))


def _print_rows(title: str, runs: Sequence[Figures]) -> None:
    table = Table(title=title, title_justify="left", box=None)
    for name in runs[0]:
        table.add_column(name.replace("_", " "), justify="right")
    for figures in runs:
        table.add_row(*(f"{value:,}" for value in figures.values()))
    Console(stderr=True, width=200).print(table)
