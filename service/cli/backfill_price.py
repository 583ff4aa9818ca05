"""What a backfill costs and how long it takes at least, for people and as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from service import keys
from service.cli.agree import number
from workers.backfill_walk import utc
from workers.budget import windows_of
from workers.close_client import key_name
from workers.tools import ENRICH_GROUP

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from redis.asyncio import Redis

    from service.knowledge import Knowledge
    from service.settings import Settings
    from workers.backfill_match import RuleTally
    from workers.backfill_run import Run
    from workers.budget import Window

MINUTE, HOUR, DAY = 60, 3600, 86_400
FAST = 10
"""From so many calls a second on, fractions of one tell nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """A budget that a backfill falls under.

    Attributes:
        words: what people call it.
        left: credits of it.
        wanted: credits that the backfill may need of it.
        drops: what it has no credit for is dropped instead of waiting.
    """

    words: str
    left: int
    wanted: int
    drops: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What is known before anything is spent.

    Attributes:
        credits_at_most: one for each enrichment.
        ceilings: the budgets it falls under.
        calls_per_second: the pace that Close was last seen to allow, or our own ceiling; None while unknown.
    """

    credits_at_most: int
    ceilings: tuple[Ceiling, ...] = ()
    calls_per_second: float | None = None

    @property
    def seconds_at_least(self) -> float | None:
        """How long so many calls take at that pace."""
        return self.credits_at_most / self.calls_per_second if self.calls_per_second else None


async def read_price(
    run: Run, redis: Redis, settings: Settings, knowledge: Knowledge, *, now_ms: int
) -> Price:
    """What a run costs at most, and what stands in its way.

    Raises:
        redis.RedisError: Redis is away.
    """
    wanted: dict[str, tuple[Window, int]] = {}
    for name, tally in zip(run.rules, run.tallies, strict=True):
        rule = knowledge.rule(name)
        windows = (
            ()
            if rule is None
            else windows_of(knowledge.rulebook, rule, now_ms=now_ms, zone=settings.budget_timezone)
        )
        for window in windows:
            wanted[window.key] = (window, wanted.get(window.key, (window, 0))[1] + tally.wanted)
    spent = await redis.mget(list(wanted)) if wanted else []
    rate = await redis.hget(keys.limiter(key_name(settings), ENRICH_GROUP), "rate")
    allowed = [one for one in (float(rate) if rate else None, settings.max_calls_per_second) if one]
    return Price(
        credits_at_most=run.total.wanted,
        ceilings=tuple(
            Ceiling(
                words=window.words,
                left=max(0, window.limit - int(count or 0)),
                wanted=needed,
                drops=window.on_exhausted == "drop",
            )
            for (window, needed), count in zip(wanted.values(), spent, strict=True)
        ),
        calls_per_second=min(allowed) if rate else None,
    )


def price_table(run: Run) -> Table:
    """What was found for each rule."""
    table = Table(title=f"Backfill {run.id}", title_justify="left", box=None)
    table.add_column("rule")
    for name in ("searched", "matched", "known already", "to enrich", "credits at most"):
        table.add_column(name, justify="right")
    lines = [*zip(run.rules, run.tallies, strict=True)]
    for name, tally in lines:
        table.add_row(Text(name), *_numbers(tally))
    if len(lines) > 1:
        table.add_row("total", *_numbers(run.total), style="bold")
    return table


def _numbers(tally: RuleTally) -> Iterator[str]:
    return (f"{one:,}" for one in (tally.searched, tally.matched, tally.known, tally.wanted, tally.wanted))


def price_lines(run: Run, price: Price) -> list[str]:
    """What there is to say about the price, a sentence each."""
    lines = []
    later = run.total.later
    if later:
        lines.append(
            f"{later:,} of them are judged when the rules before them have ended, and may not be wanted then."
        )
    if run.limit_reached:
        lines.append(f"The search ended at --limit {run.limit}: newer records were not looked at.")
    if price.calls_per_second is not None and price.seconds_at_least is not None:
        decimals = 0 if price.calls_per_second >= FAST else 1
        pace = f"{price.calls_per_second:,.{decimals}f} calls a second"
        lines.append(f"At the pace of {pace} it takes at least {duration(price.seconds_at_least)}.")
    elif price.credits_at_most:
        lines.append("How long it takes is not known before Close has answered a first call.")
    for one in price.ceilings:
        left = f"Left of the budget of {one.words}: {number(one.left, 'credit')}"
        if one.left < one.wanted:
            left += "; the rest will be dropped" if one.drops else "; the rest waits for the next"
        lines.append(f"{left}.")
    return [*lines, *gap_lines(run)]


def gap_lines(run: Run) -> list[str]:
    """What the search could not show, a sentence each."""
    lines = [
        f"More records were created at {utc(second)} than Close's search shows: run it once more afterwards."
        for second in run.skipped_seconds
    ]
    if run.unreadable:
        lines.append(f"{number(run.unreadable, 'record')} of the search could not be read.")
    return lines


def duration(seconds: float) -> str:
    """A length of time in words, roughly."""
    for size, one in ((DAY, "day"), (HOUR, "hour"), (MINUTE, "minute")):
        if seconds >= 2 * size or (seconds >= size and one == "minute"):
            return number(round(seconds / size), one)
    return number(max(1, round(seconds)), "second")


def described(run: Run, price: Price | None) -> dict[str, Any]:
    """A run and its price as plain data."""

    def found(tally: RuleTally) -> Mapping[str, int]:
        return {**asdict(tally), "credits_at_most": tally.wanted}

    return {
        "backfill": run.id,
        "stage": str(run.stage),
        "started_ms": run.started_ms,
        "complete": not gap_lines(run) and not run.limit_reached,
        "rules": [{"rule": name, **found(tally)} for name, tally in zip(run.rules, run.tallies, strict=True)],
        "total": found(run.total),
        "outcomes": run.outcomes,
        "elsewhere": run.elsewhere,
        "credits_spent": run.calls,
        "price": None
        if price is None
        else {
            "credits_at_most": price.credits_at_most,
            "budgets": [asdict(one) for one in price.ceilings],
            "calls_per_second": price.calls_per_second,
            "seconds_at_least": price.seconds_at_least,
        },
    }
