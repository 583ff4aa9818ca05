"""The command `watch`: queues, rates, spend and the newest results, live in a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from rich.console import Group
from rich.live import Live
from rich.text import Text

from service.cli.agree import noun
from service.cli.budgets import budgets_table, read_budgets
from service.cli.connection import connected
from service.cli.newest import newest_table, read_newest
from service.cli.printing import print_json, report_console
from service.cli.report import queues_table, states_table
from service.cli.start import settings_or_exit
from service.costs import read_costs, sum_by
from service.enrichment import FINAL_STATES
from service.overview import read_status, status_warnings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console, RenderableType

    from service.ledger import Ledger
    from service.settings import Settings

REFRESH_SECONDS = 1.0
RATE_SECONDS = 60.0
NEWEST = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What rates are made of, at one moment.

    Attributes:
        at_seconds: on a clock that never goes back.
        planned: enrichments there have ever been.
        ended: of those, the final ones.
        paid: credits of today.
    """

    at_seconds: float
    planned: int
    ended: int
    paid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How much happened in a minute; None as long as nothing can be said."""

    planned: float
    ended: float
    paid: float


def rates_of(samples: Iterable[Sample]) -> Rates | None:
    """Rates from the oldest to the newest sample; None for less than two. A new day's zero counts as none."""
    known = list(samples)
    if len(known) < 2 or known[-1].at_seconds <= known[0].at_seconds:  # noqa: PLR2004  a line has two ends
        return None
    first, last = known[0], known[-1]
    minutes = (last.at_seconds - first.at_seconds) / 60
    return Rates(
        planned=max(0, last.planned - first.planned) / minutes,
        ended=max(0, last.ended - first.ended) / minutes,
        paid=max(0, last.paid - first.paid) / minutes,
    )


def run_watch(*, once: bool, as_json: bool) -> None:
    """The command `watch`, until Ctrl-C.

    Args:
        once: look once.
        as_json: look once, and print JSON.
    """
    settings = settings_or_exit("REDIS_URL")
    console = report_console()
    if as_json:
        print_json(connected(settings, lambda ledger: snapshot(ledger, settings)))
    elif once or not console.is_terminal:
        found = connected(settings, lambda ledger: snapshot(ledger, settings))
        console.print(view(found, rates=None, zone=settings.budget_timezone))
    else:
        # the one way to end it
        with contextlib.suppress(KeyboardInterrupt):
            connected(settings, lambda ledger: _watch(ledger, settings, console))


async def snapshot(ledger: Ledger, settings: Settings) -> dict[str, Any]:
    """How things stand, as plain data."""
    today = dt.datetime.now(settings.budget_timezone).date()
    status = await read_status(ledger)
    lines = sum_by(await read_costs(ledger.redis, [today]), "day").get(today.isoformat(), {})
    return {
        **status,
        "budgets": await read_budgets(ledger.redis, settings),
        "today": lines,
        "newest": await read_newest(ledger, most=NEWEST),
    }


async def _watch(ledger: Ledger, settings: Settings, console: Console) -> None:
    samples: deque[Sample] = deque()
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            try:
                found = await snapshot(ledger, settings)
            except (RedisError, OSError) as error:
                samples.clear()
                away = f"Redis does not answer ({type(error).__name__}); looks again"
                live.update(Text(away, style="bold red"), refresh=True)
            else:
                samples.append(_sample(found, time.monotonic()))
                while samples[-1].at_seconds - samples[0].at_seconds > RATE_SECONDS:
                    samples.popleft()
                shown = view(found, rates=rates_of(samples), zone=settings.budget_timezone)
                live.update(shown, refresh=True)
            await asyncio.sleep(REFRESH_SECONDS)


def _sample(found: dict[str, Any], at_seconds: float) -> Sample:
    states: dict[str, int] = found["states"]
    return Sample(
        at_seconds=at_seconds,
        planned=sum(states.values()),
        ended=sum(count for state, count in states.items() if state in FINAL_STATES),
        paid=found["today"].get("paid", 0),
    )


def view(found: dict[str, Any], *, rates: Rates | None, zone: dt.tzinfo) -> RenderableType:
    """A snapshot for people.

    Args:
        found: see `snapshot`.
        rates: of the last minute, where they are known.
        zone: where budgets' days end.
    """
    today = found["today"]
    workers, calling = len(found["workers"]), found["states"]["calling"]
    paid, values = today.get("paid", 0), today.get("found", 0)
    head = Text.assemble(
        (str(workers), "bold" if workers else "bold red"),
        f" {noun(workers, 'worker')}   ",
        (str(calling), "bold"),
        f" {noun(calling, 'call')} in flight   ",
        (str(paid), "bold"),
        f" {noun(paid, 'credit')} today   ",
        (str(values), "bold"),
        f" {noun(values, 'value')} found today",
    )
    pace = (
        "in the last minute: ..."
        if rates is None
        else f"a minute: {rates.planned:.0f} planned, {rates.ended:.0f} ended, {rates.paid:.0f} credits"
    )
    parts: list[RenderableType] = [head, Text(pace, style="dim"), Text()]
    parts += [Text(warning, style="bold red") for warning in status_warnings(found)]
    parts += [states_table(found["states"], all_states=False), queues_table(found["queues"])]
    if found["budgets"]:
        parts.append(budgets_table(found["budgets"], zone=zone))
    return Group(*parts, Text(), newest_table(found["newest"]))
