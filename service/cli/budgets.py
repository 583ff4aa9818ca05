"""What the budgets of the rules file allow and what of it is spent, for `status` and `cost`."""

from __future__ import annotations

import datetime as dt
import time
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from service.rules_file import load_rules
from workers.budget import windows_of

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

    from service.rules import RuleBook
    from service.settings import Settings


async def read_budgets(redis: Redis, settings: Settings) -> list[dict[str, Any]] | None:
    """Every budget as it stands now; None where the rules file is not to be had here or has mistakes.

    Args:
        redis: where the counters are.
        settings: for the rules file and the time zone of days and months.
    """
    rulebook = readable_rules(settings.rules_file)
    if rulebook is None:
        return None
    now_ms = round(time.time() * 1000)
    windows = {
        window.key: window
        for rule in rulebook.rules
        for window in windows_of(rulebook, rule, now_ms=now_ms, zone=settings.budget_timezone)
    }
    spent = await redis.mget(list(windows)) if windows else []
    return [
        {
            "budget": window.words,
            "limit": window.limit,
            "spent": int(count or 0),
            "left": max(0, window.limit - int(count or 0)),
            "on_exhausted": str(window.on_exhausted),
            "ends_ms": window.ends_ms,
        }
        for window, count in zip(windows.values(), spent, strict=True)
    ]


def readable_rules(path: Path) -> RuleBook | None:
    """The rules of a file; None where it is not to be had here or has mistakes."""
    try:
        text = path.read_bytes()
    except OSError:
        return None
    return load_rules(text, source=str(path)).rulebook


def budgets_table(budgets: list[dict[str, Any]], *, zone: dt.tzinfo) -> Table:
    """The budgets for people; what is used up is red."""
    table = Table(title="Budgets", title_justify="left", box=None)
    table.add_column("budget")
    for name in ("spent", "left"):
        table.add_column(name, justify="right")
    table.add_column("until", no_wrap=True)
    for one in budgets:
        until = dt.datetime.fromtimestamp(one["ends_ms"] / 1000, zone)
        table.add_row(
            Text(one["budget"]),
            str(one["spent"]),
            str(one["left"]),
            until.strftime("%Y-%m-%d %H:%M %Z"),
            style="" if one["left"] else "red",
        )
    return table
