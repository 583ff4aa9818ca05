"""The commands of the suites that load a receiver through wrk."""

from __future__ import annotations

import click

from tests.bench.ingest import PARTS, Ingest, run_ingest
from tests.bench.scale_cost import PARTS as SCALE_PARTS
from tests.bench.scale_cost import Growth, run_scale_cost
from tests.bench.tables import report, report_tables
from tests.bench.wrk import NoWrkError


@click.command("ingest")
@click.option("--events", type=click.IntRange(min=100), default=10_000, show_default=True, help="A round.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option(
    "--waiting",
    type=click.IntRange(min=3),
    default=1_000_000,
    show_default=True,
    help="Enrichments in the queue, for the part of that name.",
)
@click.option("--only", "parts", multiple=True, type=click.Choice(PARTS), help="A part; may be repeated.")
@click.option("--short", is_flag=True, help="3 rounds of 3,000 events, 50,000 waiting, 5 s at a pace.")
def ingest(*, events: int, rounds: int, waiting: int, parts: tuple[str, ...], short: bool) -> None:
    """Signed events with three rules each, on one core; beside an app that only reads them. Needs wrk.

    Parts: new events of 3 KB; the same where many enrichments wait; bodies of 200 KB; duplicates; forged
    signatures; and how long an answer takes at 1,000 new events a second.

    Example: python -m tests.bench ingest --only new --only paced
    """
    chosen = parts or PARTS
    wanted = (
        Ingest.short(chosen) if short else Ingest(parts=chosen, events=events, rounds=rounds, waiting=waiting)
    )
    try:
        report("ingest", run_ingest(wanted))
    except NoWrkError as error:
        raise click.UsageError(str(error)) from None


@click.command("scale-cost")
@click.option("--events", type=click.IntRange(min=100), default=3000, show_default=True, help="A round.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option(
    "--backlog",
    "backlogs",
    multiple=True,
    type=click.IntRange(min=0),
    help="Enrichments that wait; repeat it. By default none, 10,000, 100,000 and 1,000,000.",
)
@click.option(
    "--rules",
    multiple=True,
    type=click.IntRange(1, 1000),
    help="In the file; repeat it. By default 1, 10, 50 and 200.",
)
@click.option("--only", "parts", multiple=True, type=click.Choice(SCALE_PARTS), help="May be repeated.")
def scale_cost(
    *,
    events: int,
    rounds: int,
    backlogs: tuple[int, ...],
    rules: tuple[int, ...],
    parts: tuple[str, ...],
) -> None:
    """What an event costs as backlog and rules grow, and what the sweeper costs. Needs wrk.

    Example: python -m tests.bench scale-cost --only rules --rules 1 --rules 100
    """
    usual = Growth()
    wanted = Growth(
        parts=parts or usual.parts,
        backlogs=backlogs or usual.backlogs,
        rules=rules or usual.rules,
        events=events,
        rounds=rounds,
    )
    try:
        report_tables(run_scale_cost(wanted))
    except NoWrkError as error:
        raise click.UsageError(str(error)) from None
