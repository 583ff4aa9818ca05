"""The command `export`: the enrichment history for a warehouse or a spreadsheet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from typing import TextIO

    from service.ledger import Ledger


@click.command()
@click.option("--format", "as_format", type=click.Choice(["csv", "jsonl"]), default="csv", show_default=True)
@click.option("--since", metavar="WHEN", help="Only what has changed since: 12h, 7d or 2026-11-01.")
@click.option(
    "--state", "states", multiple=True, metavar="STATE", help="Only this state; may be given several times."
)
@click.option(
    "-o",
    "--output",
    type=click.File("w", encoding="utf-8", lazy=False),
    default="-",
    help="A file; `-` is the terminal.",
)
def export(as_format: str, since: str | None, states: tuple[str, ...], output: TextIO) -> None:
    """Write every enrichment as one row, in no order: what was wanted, found, paid and when.

    Values may be personal data. What ended more than 35 days ago is no longer known.

    Example: close-enrich export --format csv --since 7d -o enrichments.csv
    """
    import datetime as dt

    from service.cli.connection import connected
    from service.cli.since import since_or_exit
    from service.cli.start import give_up, settings_or_exit
    from service.enrichment import State
    from service.export import ExportFormat, csv_header, csv_line, exported, jsonl_line

    unknown = [one for one in states if one not in set(State)]
    if unknown:
        give_up(f"--state {unknown[0]}: expected one of {', '.join(State)}")
    settings = settings_or_exit("REDIS_URL")
    now = dt.datetime.now(dt.UTC)
    start = None if since is None else since_or_exit(since, now=now, zone=settings.budget_timezone)
    write_line = csv_line if as_format == ExportFormat.CSV else jsonl_line

    async def write(ledger: Ledger) -> int:
        count = 0
        if as_format == ExportFormat.CSV:
            output.write(csv_header())
        async for row in exported(
            ledger,
            since_ms=0 if start is None else round(start.timestamp() * 1000),
            states=frozenset(State(one) for one in states) or None,
        ):
            output.write(write_line(row))
            count += 1
        return count

    count = connected(settings, write)
    if output.name not in {"-", "<stdout>"}:
        click.echo(f"{count} enrichments written to {output.name}", err=True)
