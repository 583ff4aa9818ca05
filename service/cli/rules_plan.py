"""`close-enrich rules plan`: what is typed; what it does is in `service.cli.dry_run`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("plan")
@click.option(
    "--since",
    default="7d",
    show_default=True,
    help="From so long ago on, or from a day: 12h, 7d, 2026-11-01; at most 30d.",
)
@click.option(
    "--rules",
    "rules_file",
    type=click.Path(path_type=Path),
    help="The rules file; the one of RULES_FILE by default.",
)
@click.option(
    "--diff", "old_file", type=click.Path(path_type=Path), help="Compare with what these older rules do."
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="With --diff, show so many records that only one of the two would enrich.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(since: str, rules_file: Path | None, old_file: Path | None, *, limit: int, as_json: bool) -> None:
    """Say what rules would have done to the events in Close's event log, and what it would have cost.

    Plans nothing and calls for nothing. Needs CLOSE_API_KEY, an admin's for events older than an hour; shares
    Close's pace with the workers through REDIS_URL, and does without where that is unset.

    Example: close-enrich rules plan --since 7d --rules new.yaml --diff rules.yaml
    """
    from service.cli.dry_run import run_plan

    run_plan(since=since, rules_file=rules_file, old_file=old_file, limit=limit, as_json=as_json)
