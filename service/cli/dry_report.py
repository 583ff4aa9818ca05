"""How `rules plan` tells what rules would have done."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from service.cli.agree import number
from service.cli.printing import report_console
from service.problem import printable
from workers.dry_tally import only_in
from workers.log_walk import close_time

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator

    from workers.dry_tally import BudgetForecast, Forecast, OnlyOne, RuleForecast
    from workers.dry_walk import WalkedPair


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """What rules would have done.

    Attributes:
        since, until: the time looked at.
        days: the days it touches.
        forecast: of the rules.
        old: of the rules that they are compared with, or None.
        month: credits in a month at that rate.
        budgets: every ceiling of the rules.
        settling: some condition would have been judged on a fresh read.
        walked: the kinds of events.
    """

    since: dt.datetime
    until: dt.datetime
    days: tuple[str, ...]
    forecast: Forecast
    old: Forecast | None
    month: int
    budgets: tuple[BudgetForecast, ...]
    settling: bool
    walked: tuple[WalkedPair, ...]

    @property
    def complete(self) -> bool:
        """Whether every kind of event was walked to its end."""
        return all(one.problem is None for one in self.walked)

    @property
    def seconds(self) -> float:
        """The time looked at."""
        return (self.until - self.since).total_seconds()

    @property
    def day(self) -> float:
        """Credits at most on an average day."""
        return self.forecast.credits_at_most * 86400 / self.seconds


def described(report: PlanReport, *, limit: int) -> dict[str, Any]:
    """A report as plain data; ids are all that it holds of records."""
    return {
        "since": close_time(report.since),
        "until": close_time(report.until),
        "complete": report.complete,
        "types": [
            {
                "type": str(one.pair),
                "events": one.events,
                "unreadable": one.unreadable,
                "problem": one.problem,
            }
            for one in report.walked
        ],
        **_numbers(report.forecast),
        "credits_by_day": {day: report.forecast.credits_by_day[day] for day in report.days},
        "credits_per_day": round(report.day, 1),
        "credits_per_month": report.month,
        "budgets": [asdict(one) | {"short": one.short} for one in report.budgets],
        "diff": None if report.old is None else _difference(report.forecast, report.old, limit=limit),
    }


def _numbers(forecast: Forecast) -> dict[str, Any]:
    return {
        "events": forecast.events,
        "without_data": forecast.without_data,
        "fields": len(forecast.targets),
        "credits_at_most": forecast.credits_at_most,
        "rules": [asdict(one) | {"credits_at_most": one.credits_at_most} for one in forecast.rules],
    }


def _difference(new: Forecast, old: Forecast, *, limit: int) -> dict[str, Any]:
    sides = {"only_new": only_in(new, old), "only_old": only_in(old, new)}
    return {
        "old": _numbers(old),
        **{f"{side}_count": len(found) for side, found in sides.items()},
        **{side: [asdict(one) for one in found[:limit]] for side, found in sides.items()},
    }


def show_plan(report: PlanReport, *, limit: int, zone: dt.tzinfo) -> None:
    """Print a report.

    Args:
        report: what is shown.
        limit: how many records that only one of two files would enrich are named, for each file.
        zone: for times.
    """
    console = report_console(highlight=False)

    def line(text: str, style: str = "") -> None:
        console.print(Text(printable(text), style=style), soft_wrap=True)

    begin, end = (moment.astimezone(zone) for moment in (report.since, report.until))
    line(f"Close's event log from {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M %Z}; nothing was planned.")
    console.print()
    console.print(_rules_table(report.forecast))
    console.print()
    for told in _reasons(report.forecast):
        line(told)
    total = report.forecast.credits_at_most
    line(f"At most {number(total, 'credit')}: about {report.day:.1f} a day, {report.month} in 30 days.")
    for budget in report.budgets:
        line(_budget(budget), "red" if budget.short else "")
    for caveat in _caveats(report):
        line(caveat, "yellow")
    if report.old is not None:
        console.print()
        console.print(_difference_table(report.forecast, report.old))
        for title, found in (
            ("Only the new rules", only_in(report.forecast, report.old)),
            ("Only the old rules", only_in(report.old, report.forecast)),
        ):
            for told in _named(title, found, limit=limit):
                line(told)
    for one in report.walked:
        if one.problem is not None:
            line(f"{one.pair} was not walked to its end: {one.problem}. Try again.", "red")


def _rules_table(forecast: Forecast) -> Table:
    table = Table(title="What the rules would have done", title_justify="left", box=None)
    table.add_column("rule")
    for name in ("events", "wanted", "not wanted", "not judged", "fields", "credits at most"):
        table.add_column(name, justify="right")
    for one in forecast.rules:
        counts = (one.events, one.wanted, sum(one.refused.values()), one.not_judged, one.fields)
        table.add_row(Text(printable(one.rule)), *map(str, counts), str(one.credits_at_most))
    table.add_row(
        "total",
        *("", "", "", ""),
        str(len(forecast.targets)),
        str(forecast.credits_at_most),
        style="bold",
    )
    return table


def _reasons(forecast: Forecast) -> Iterator[str]:
    for one in forecast.rules:
        if one.problem is not None:
            yield f"{one.rule} cannot run: {one.problem}"
        elif one.refused:
            told = "; ".join(f"{count} {reason}" for reason, count in one.refused.items())
            yield f"{one.rule}, not wanted: {told}"


def _budget(budget: BudgetForecast) -> str:
    if budget.reached is not None:
        fared = f"would have been reached on {budget.reached} of {budget.days} days"
        return f"Budget of {budget.words}: {fared if budget.reached else 'would never have been reached'}"
    enough = "would not be enough" if budget.short else "would be enough"
    return f"Budget of {budget.words}: {enough}, at {budget.month} in 30 days"


def _caveats(report: PlanReport) -> Iterator[str]:
    if report.forecast.without_data:
        yield (
            f"{report.forecast.without_data} of {number(report.forecast.events, 'event')} came without data, "
            "so conditions on them were not judged and are not in the price. For events older than an hour, "
            "Close wants an admin's key."
        )
    if report.settling:
        yield (
            "Rules that settle are judged on a fresh read before the call; here they were judged on the "
            "event's own data."
        )
    unreadable = sum(one.unreadable for one in report.walked)
    if unreadable:
        yield f"{number(unreadable, 'entry', 'entries')} of the log could not be read."


def _difference_table(new: Forecast, old: Forecast) -> Table:
    table = Table(title="Credits at most", title_justify="left", box=None)
    table.add_column("rule")
    for name in ("old", "new", "difference"):
        table.add_column(name, justify="right")
    by_name: dict[str, list[RuleForecast | None]] = {one.rule: [one, None] for one in old.rules}
    for one in new.rules:
        by_name.setdefault(one.rule, [None, None])[1] = one
    for name, (before, after) in by_name.items():
        prices = [None if one is None else one.credits_at_most for one in (before, after)]
        told = ["-" if price is None else str(price) for price in prices]
        table.add_row(Text(printable(name)), *told, f"{(prices[1] or 0) - (prices[0] or 0):+d}")
    sums = (old.credits_at_most, new.credits_at_most)
    table.add_row("total", *map(str, sums), f"{sums[1] - sums[0]:+d}", style="bold")
    return table


def _named(title: str, found: tuple[OnlyOne, ...], *, limit: int) -> Iterator[str]:
    if not found:
        return
    yield f"{title} would enrich {number(len(found), 'field')}:"
    for one in found[:limit]:
        yield f"  {one.object_id}  {one.rule}"
    if len(found) > limit:
        yield f"  and {len(found) - limit} more: --limit {len(found)}"
