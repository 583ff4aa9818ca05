"""`backfill --status` and `backfill --cancel`: what was begun, and ending it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from rich.table import Table
from rich.text import Text

from service.cli.backfill_price import described
from service.cli.connection import connected
from service.cli.printing import print_json, report_console
from service.cli.start import give_up, settings_or_exit
from service.overview import moment
from service.problem import nearest
from workers.backfill_cancel import cancel
from workers.backfill_run import RunStore, Stage
from workers.backfill_watch import Progress, Watch, with_progress

if TYPE_CHECKING:
    from service.ledger import Ledger
    from workers.backfill_run import Run

EXIT_NOT_FOUND = 1


def run_status(*, as_json: bool) -> None:
    """List the backfills that are remembered, newest first, and how far they are."""
    found: list[tuple[Run, Progress]] = connected(settings_or_exit("REDIS_URL"), _read)
    if as_json:
        print_json([described(with_progress(run, progress), None) for run, progress in found])
        return
    if not found:
        click.echo("There are no backfills.")
        return
    table = Table(title="Backfills", title_justify="left", box=None)
    table.add_column("backfill", no_wrap=True)
    table.add_column("begun (UTC)", no_wrap=True)
    for name in ("stage", "rules"):
        table.add_column(name)
    for name in ("to enrich", "ended", "spent"):
        table.add_column(name, justify="right")
    for run, progress in found:
        table.add_row(
            run.id,
            moment(run.started_ms)[:16],
            run.stage.value,
            Text(", ".join(run.rules)),
            f"{run.total.wanted:,}",
            f"{progress.done:,}",
            f"{progress.calls:,}",
        )
    report_console().print(table)


async def _read(ledger: Ledger) -> list[tuple[Run, Progress]]:
    store = RunStore(ledger.redis)
    return [(known.run, await _progress(store, known.run, ledger)) for known in await store.newest()]


async def _progress(store: RunStore, run: Run, ledger: Ledger) -> Progress:
    if run.stage in (Stage.PLANNING, Stage.WORKING):
        return await (await Watch.of(store, run, ledger.redis)).look_at_all()
    return Progress(total=run.total.wanted, ended=run.outcomes, calls=run.calls, elsewhere=run.elsewhere)


def run_cancel(run_id: str, *, as_json: bool) -> None:
    """Drop what a backfill has planned and no worker has begun. Exits 1 where there is no such backfill."""

    async def work(ledger: Ledger) -> tuple[Run, int] | list[str]:
        store = RunStore(ledger.redis)
        known = await store.read(run_id)
        if known is None:
            return [one.run.id for one in await store.newest()]
        return await cancel(store, ledger, known)

    answer: Any = connected(settings_or_exit("REDIS_URL"), work)
    if isinstance(answer, list):
        near = nearest(run_id, answer)
        hint = f"; did you mean {near}?" if near else "; see close-enrich backfill --status"
        give_up(f"there is no backfill {run_id}{hint}", code=EXIT_NOT_FOUND)
    run, dropped = answer
    if as_json:
        print_json({**described(run, None), "dropped": dropped})
    elif run.stage is Stage.ENDED:
        click.echo(f"Backfill {run.id} had ended; nothing was changed.")
    else:
        click.echo(f"Backfill {run.id} is cancelled: {dropped:,} dropped. What had begun ends as usual.")
