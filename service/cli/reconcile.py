"""The command `reconcile`: walk Close's event log by hand."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from redis.exceptions import RedisError
from rich.table import Table

from service.accept import StoreUnavailableError
from service.cli.connection import connected
from service.cli.printing import print_json, report_console
from service.cli.start import give_up, rules_or_exit, settings_or_exit
from service.durations import nearest_duration, parse_duration
from workers.log_walk import HISTORY, close_time
from workers.runtime import make_reconciler, open_tools

if TYPE_CHECKING:
    from service.rules import RuleBook
    from service.settings import Settings
    from workers.log_report import Findings, Report

EXIT_FAILED = 1


def run_reconcile(*, since: str, dry_run: bool, as_json: bool) -> None:
    """The command `reconcile`. Exits 1 where the log could not be walked to its end, 2 for a wrong input.

    Args:
        since: how long ago the walk ends, as people write it.
        dry_run: plan nothing.
        as_json: print JSON.
    """
    seconds = _seconds_or_exit(since)
    settings = settings_or_exit("REDIS_URL", "CLOSE_API_KEY")
    rulebook = rules_or_exit(settings.rules_file)
    # a worker waits for its Redis; a person wants to hear at once that it is away
    connected(settings, lambda ledger: ledger.redis.ping())
    try:
        report = asyncio.run(_walk(settings, rulebook, seconds=seconds, dry_run=dry_run))
    except (RedisError, StoreUnavailableError, OSError) as error:
        give_up(
            f"Redis does not answer at REDIS_URL ({type(error).__name__}); what was planned stays planned",
            code=EXIT_FAILED,
        )
    except ValueError as error:
        give_up(f"CLOSE_API_KEY, CLOSE_API_URL: {error}")
    if report is None:
        give_up(
            "Close's custom fields are not known: it does not answer, or refuses CLOSE_API_KEY",
            code=EXIT_FAILED,
        )
    if as_json:
        print_json({"since": since, "dry_run": dry_run, **described(report)})
    else:
        _show(report, dry_run=dry_run)
    if not report.drained:
        sys.exit(EXIT_FAILED)


def _seconds_or_exit(since: str) -> float:
    seconds = parse_duration(since)
    if seconds is None or seconds <= 0:
        near = nearest_duration(since)
        hint = f"; did you mean {near}?" if near and near != since else ""
        give_up(f"--since {since}: expected how long ago, such as 90m, 12h or 3d{hint}")
    if seconds > HISTORY.total_seconds():
        give_up(f"--since {since}: Close's event log goes back {HISTORY.days}d, no further")
    return seconds


async def _walk(settings: Settings, rulebook: RuleBook, *, seconds: float, dry_run: bool) -> Report | None:
    """Walk; None where Close's custom fields could not be had."""
    async with open_tools(settings, rulebook, worker="reconcile") as (tools, _):
        if not tools.knowledge().complete:
            return None
        return await make_reconciler(settings, tools).look_back(seconds=seconds, dry_run=dry_run)


def _numbers(findings: Findings) -> dict[str, int]:
    return {**asdict(findings), "credits_at_most": findings.credits_at_most}


def described(report: Report) -> dict[str, Any]:
    """A report as plain data."""
    return {
        "complete": report.drained,
        "types": [
            {
                "type": str(one.pair),
                "since": close_time(one.since),
                **_numbers(one.findings),
                "problem": one.problem,
            }
            for one in report.pairs
        ],
        "total": _numbers(report.total),
    }


def _show(report: Report, *, dry_run: bool) -> None:
    table = Table(title="Close's event log", title_justify="left", box=None)
    table.add_column("event")
    for name in ("looked at", "matched", "missed", "would plan" if dry_run else "planned", "held"):
        table.add_column(name, justify="right")
    for name, found, style in (
        *((str(one.pair), one.findings, "") for one in report.pairs),
        ("total", report.total, "bold"),
    ):
        numbers = (found.events, found.matched, found.missed, found.planned, found.held)
        table.add_row(name, *map(str, numbers), style=style)
    report_console().print(table)
    total = report.total
    if not total.planned:
        whole = report.drained and not total.unreadable
        click.echo(f"Nothing was missed{'' if whole else ' in what could be read'}.")
    elif dry_run:
        click.echo(f"Would plan {total.planned}, for {_price(total)}. Nothing was planned.")
    else:
        held = f"; the burst guard holds {total.held}: close-enrich release" if total.held else ""
        click.echo(f"Planned {total.planned}, for {_price(total)}{held}.")
    if total.unreadable:
        click.echo(f"{total.unreadable} could not be read or planned; the log says why.")
    for one in report.pairs:
        if one.problem is not None:
            click.echo(f"{one.pair} was not walked to its end: {one.problem}. Try again.", err=True)


def _price(total: Findings) -> str:
    return f"at most {total.credits_at_most} credit{'' if total.credits_at_most == 1 else 's'}"
