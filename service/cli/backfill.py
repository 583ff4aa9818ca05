"""The command `backfill`: fill the leads and contacts that are there already."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--rule", "names", metavar="NAME", multiple=True, help="Fill by this rule; may be repeated.")
@click.option("--all", "everything", is_flag=True, help="Fill by every enabled rule.")
@click.option("--where", metavar="CEL", help="Only records that meet this condition, as in a rule's `when`.")
@click.option(
    "--query",
    type=click.Path(path_type=Path, dir_okay=False),
    help='Only records that a search in Close finds: a file with what "Copy Filters" gives.',
)
@click.option("--since", metavar="DATE|AGE", help="Only records created since: 2026-01-31, 90d.")
@click.option(
    "--limit", type=click.IntRange(min=1), help="At most so many enrichments, oldest records first."
)
@click.option("--dry-run", is_flag=True, help="Only count, and show the price.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--detach", is_flag=True, help="Do not watch: end when all is planned.")
@click.option("--status", "show_status", is_flag=True, help="List backfills and how far they are.")
@click.option("--cancel", "cancelled", metavar="RUN", help="Drop what this backfill has not begun.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def backfill(
    *,
    names: tuple[str, ...],
    everything: bool,
    where: str | None,
    query: Path | None,
    since: str | None,
    limit: int | None,
    dry_run: bool,
    yes: bool,
    detach: bool,
    show_status: bool,
    cancelled: str | None,
    as_json: bool,
) -> None:
    """Fill what is there already, behind all live work, after showing the price.

    Needs REDIS_URL and CLOSE_API_KEY; workers do the work. Stopped or killed, it goes on where it was when
    the same command is given again.

    Example: close-enrich backfill --rule Industry --since 90d --where 'lead.url != ""' --dry-run
    """
    chosen = [bool(names or everything), show_status, cancelled is not None]
    if sum(chosen) != 1:
        raise click.UsageError("say what to fill: --rule NAME or --all; or one of --status and --cancel RUN")
    if names and everything:
        raise click.UsageError("--rule and --all both say which rules; give one of them")
    if show_status:
        from service.cli.backfill_runs import run_status

        run_status(as_json=as_json)
    elif cancelled is not None:
        from service.cli.backfill_runs import run_cancel

        run_cancel(cancelled, as_json=as_json)
    else:
        from service.cli.backfill_command import Manner, run_backfill
        from service.cli.backfill_order import Wish

        run_backfill(
            Wish(rules=names or None, where=where, query=query, since=since, limit=limit),
            Manner(dry_run=dry_run, yes=yes, detach=detach, as_json=as_json),
        )
