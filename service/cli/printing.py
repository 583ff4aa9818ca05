"""How commands print: every `--json`, and every report for people."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

import click
import msgspec

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

BEYOND_ANY_LINE = 10_000


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def report_console(*, highlight: bool = True) -> Console:
    """Where a report is printed: as wide as the terminal or COLUMNS, and without both as wide as it takes.

    What goes into a pipe or a file is searched and copied from, so nothing is folded there.

    Args:
        highlight: whether numbers and the like get colours.
    """
    from rich.console import Console

    if sys.stdout.isatty():
        return Console(highlight=highlight)
    # rich itself would ask whether stdin or stderr is a terminal, and fold for that
    width = shutil.get_terminal_size(fallback=(BEYOND_ANY_LINE, 25)).columns
    return Console(highlight=highlight, width=width)


def fits(console: Console, table: Table) -> bool:
    """Whether a table can be printed without folding any of its cells."""
    unfolded = console.options.update(width=BEYOND_ANY_LINE)
    return console.measure(table, options=unfolded).maximum <= console.width
