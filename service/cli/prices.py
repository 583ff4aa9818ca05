"""The command `cost`: what was called, paid, found and saved, by rule, field or day."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from service.cli.agree import number
from service.cli.budgets import budgets_table, read_budgets
from service.cli.connection import connected
from service.cli.printing import print_json, report_console
from service.cli.start import give_up, settings_or_exit
from service.costs import METRICS, read_costs, sum_by

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from service.costs import Cost
    from service.ledger import Ledger

KEPT_DAYS = 400
"""How far back the price list goes (see entry.lua)."""

DEFAULT_DAYS = 30

_HEADINGS = (
    "calls",
    "paid",
    "found",
    "empty",
    "saved by\nskipping",
    "saved by\nreading back",
    "saved by\ndedupe",
)


def print_cost(*, by: str, days: int | None, since: dt.date | None, as_json: bool) -> None:
    """The command `cost`.

    Args:
        by: `rule`, `field` or `day`.
        days: so many days up to today, in `BUDGET_TIMEZONE`.
        since: or from this day on.
        as_json: print JSON.
    """
    settings = settings_or_exit("REDIS_URL")
    today = dt.datetime.now(settings.budget_timezone).date()
    first = since or today - dt.timedelta(days=(days or DEFAULT_DAYS) - 1)
    if first > today:
        give_up(f"--since {first} is in the future; today is {today}")
    if (today - first).days >= KEPT_DAYS:
        give_up(f"--since {first} is too long ago: prices are kept for {KEPT_DAYS} days")

    async def read(ledger: Ledger) -> tuple[list[Cost], list[dict[str, Any]] | None]:
        span = [first + dt.timedelta(days=one) for one in range((today - first).days + 1)]
        return await read_costs(ledger.redis, span), await read_budgets(ledger.redis, settings)

    costs, budgets = connected(settings, read)
    lines = sum_by(costs, by)
    if by != "day":
        lines = dict(sorted(lines.items(), key=lambda line: (-line[1]["paid"], line[0])))
    total = _total(lines)
    if as_json:
        print_json(
            {
                "by": by,
                "since": first.isoformat(),
                "until": today.isoformat(),
                "timezone": str(settings.budget_timezone),
                "lines": [{by: name, **counts} for name, counts in lines.items()],
                "total": total,
                "budgets": budgets,
            }
        )
        return
    console = report_console()
    console.print(_price_list(lines, total, by=by, first=first, today=today))
    if budgets:
        console.print(budgets_table(budgets, zone=settings.budget_timezone))


def cost_line(costs: Iterable[Cost]) -> str:
    """All of it in a line."""
    total = _total(sum_by(costs, "day"))
    return (
        f"Cost: {number(total['calls'], 'call')}, {total['paid']} paid; "
        f"saved {total['skipped']} by skipping, {total['confirmed']} by reading back, "
        f"{total['duplicates']} by dedupe"
    )


def _total(lines: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    return {metric: sum(line[metric] for line in lines.values()) for metric in METRICS}


def _price_list(
    lines: Mapping[str, Mapping[str, int]],
    total: Mapping[str, int],
    *,
    by: str,
    first: dt.date,
    today: dt.date,
) -> Table:
    table = Table(
        title=f"Credits from {first} to {today}; one call is one credit", title_justify="left", box=None
    )
    table.add_column(by)
    for heading in _HEADINGS:
        table.add_column(heading, justify="right")
    for name, counts in lines.items():
        table.add_row(Text(name), *(str(counts[metric]) for metric in METRICS))
    table.add_row("total", *(str(total[metric]) for metric in METRICS), style="bold")
    return table
