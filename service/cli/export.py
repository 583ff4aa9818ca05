"""The command `export`: the enrichment history for a warehouse or a spreadsheet."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

if TYPE_CHECKING:
    from collections.abc import Iterator
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
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    default="-",
    help="A file, which is replaced once all is written; `-` is the terminal.",
)
def export(as_format: str, since: str | None, states: tuple[str, ...], output: Path) -> None:
    """Write every enrichment as one row, in no order: what was wanted, found, paid and when.

    Values may be personal data. What ended more than 35 days ago is no longer known.

    Example: close-enrich export --format csv --since 7d -o enrichments.csv
    """
    import datetime as dt

    from service.cli.agree import number
    from service.cli.connection import connected
    from service.cli.output import writing
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

    async def write(ledger: Ledger, stream: TextIO) -> int:
        count = 0
        if as_format == ExportFormat.CSV:
            with writing():
                stream.write(csv_header())
        async for row in exported(
            ledger,
            since_ms=0 if start is None else round(start.timestamp() * 1000),
            states=frozenset(State(one) for one in states) or None,
        ):
            with writing():
                stream.write(write_line(row))
            count += 1
        return count

    with _standard_output() if str(output) == "-" else _replacing(output) as stream:
        count = connected(settings, lambda ledger: write(ledger, stream))
    if str(output) != "-":
        click.echo(f"{number(count, 'enrichment')} written to {output}", err=True)


@contextlib.contextmanager
def _standard_output() -> Iterator[TextIO]:
    from service.cli.output import writing

    # whatever the terminal's encoding is: a warehouse or a spreadsheet reads it
    with writing(), click.open_file("-", "w", encoding="utf-8") as stream:
        yield cast("TextIO", stream)
        stream.flush()


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    """A file that takes the place of another at the end; the other stays where the end is not reached."""
    from service.cli.output import writing
    from service.cli.start import give_up

    target = path.resolve()
    # what is no file, such as a device or a pipe, is written to: putting a file in its place would break it
    written = target if target.exists() and not target.is_file() else _beside(target)
    try:
        stream = written.open("w", encoding="utf-8")
        if written != target and target.exists():
            written.chmod(target.stat().st_mode & 0o777)
    except OSError as error:
        give_up(f"-o {path}: {error.strerror}")
    try:
        with writing(), stream:
            yield stream
        if written != target:
            with writing():
                written.replace(target)
    finally:
        if written != target:
            written.unlink(missing_ok=True)


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}.part")
