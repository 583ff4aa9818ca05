"""The price list: what every rule and field cost, and what was saved. One hash a day, kept by the scripts."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service import keys
from service.enrichment import State
from service.redis_text import raw_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from redis.asyncio import Redis

METRICS: Mapping[str, str] = {
    "calls": "calls made",
    "paid": "calls that may have been charged",
    "found": "values found",
    "empty": "nothing found",
    "skipped": "saved: not called, because the field was filled or the rule did not want it",
    "confirmed": "saved: an unclear call had run, found by reading back",
    "duplicates": "saved: the same field was wanted again",
}
"""What is counted, in the order in which it is shown."""

METRIC_OF_STATE: Mapping[State, str] = {
    State.FILLED: "found",
    State.PREVIEWED: "found",
    State.EMPTY: "empty",
    State.KEPT: "skipped",
    State.SKIPPED: "skipped",
    State.CONFIRMED: "confirmed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One rule's and field's numbers of one day; `counts` has every one of `METRICS`."""

    day: str
    rule: str
    field: str
    counts: Mapping[str, int]


def price_list(now_seconds: float, zone: dt.tzinfo) -> str:
    """The key of the price list of the day that a moment falls on.

    Args:
        now_seconds: Unix seconds.
        zone: where days begin.
    """
    return keys.cost(dt.datetime.fromtimestamp(now_seconds, zone).date().isoformat())


async def read_costs(redis: Redis, days: Iterable[dt.date]) -> list[Cost]:
    """The price lists of some days, in their order."""
    named = [day.isoformat() for day in days]
    async with redis.pipeline(transaction=False) as pipeline:
        for day in named:
            pipeline.hgetall(keys.cost(day))
        rows = await pipeline.execute()
    found = []
    for day, raw in zip(named, rows, strict=True):
        lines: dict[tuple[str, str], dict[str, int]] = {}
        for name, count in raw_hash(raw).items():
            rule, field, metric = name.decode().split("\t")
            lines.setdefault((rule, field), {})[metric] = int(count)
        found += [
            Cost(day=day, rule=rule, field=field, counts=_complete(counts))
            for (rule, field), counts in sorted(lines.items())
        ]
    return found


def sum_by(costs: Iterable[Cost], by: str) -> dict[str, dict[str, int]]:
    """Totals by `rule`, `field` or `day`.

    Raises:
        AttributeError: there is no such column.
    """
    totals: dict[str, dict[str, int]] = {}
    for cost in costs:
        line = totals.setdefault(getattr(cost, by), dict.fromkeys(METRICS, 0))
        for metric, count in cost.counts.items():
            line[metric] += count
    return totals


def _complete(counts: Mapping[str, int]) -> dict[str, int]:
    known = dict(counts)
    known["paid"] = known.get("calls", 0) - known.pop("unpaid", 0)
    return {metric: known.get(metric, 0) for metric in METRICS}
