"""`/metrics`: what `service.meter` counted and how things stand now, in Prometheus's text formats.

Every number is the whole installation's and is read from Redis, so any web process shows the same.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from redis.exceptions import RedisError

from service import metrics_catalogue as catalogue
from service.metrics_catalogue import COUNTED, SUM, Family, Kind, Series
from service.metrics_reading import Snapshot, read_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from prometheus_client import Metric

    from service.knowledge import Knowledge
    from service.ledger import Ledger
    from service.metrics_reading import BudgetWindow
    from service.rules import RuleBook

PATIENCE_SECONDS = 5.0
"""Redis is away if looking takes longer; Prometheus itself gives up after ten."""

MOST_COMBINATIONS = 64
"""A family whose labels say only fixed words shows all of their combinations from the start, if so few."""

_OPENMETRICS = "application/openmetrics-text"


class Metrics:
    """Answers scrapes.

    Args:
        ledger: where everything is.
        knowledge: what is known at the moment.
        windows: the budgets of a rule book as they stand at a moment (Unix milliseconds).
        now_ms: Unix milliseconds.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        knowledge: Callable[[], Knowledge],
        windows: Callable[[RuleBook, int], Sequence[BudgetWindow]],
        now_ms: Callable[[], int],
    ) -> None:
        self._ledger = ledger
        self._knowledge = knowledge
        self._windows = windows
        self._now_ms = now_ms

    async def render(self, accept: str) -> tuple[bytes, str]:
        """One scrape's answer and its content type. Raises nothing: without Redis it says so.

        Args:
            accept: the request's Accept header; OpenMetrics where it asks for that.
        """
        rulebook = self._knowledge().rulebook
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                windows = self._windows(rulebook, self._now_ms())
                snapshot = await read_snapshot(self._ledger, windows=windows)
        except (RedisError, OSError):
            return encode([_simple(catalogue.REDIS_UP, {(): 0})], accept)
        found = exposed(snapshot, rules_enabled=len(rulebook.enabled))
        # hundreds of rules are thousands of lines: deliveries are not to wait for them
        return await asyncio.to_thread(encode, found, accept)


def encode(families: Iterable[Metric], accept: str) -> tuple[bytes, str]:
    """Families as text, and its content type.

    Args:
        families: what to expose; names are plain ASCII, so no escaping is to be agreed on.
        accept: the request's Accept header: OpenMetrics where it names that, else Prometheus's plain text.
    """
    found = _Found(families)
    if any(one.partition(";")[0].strip().lower() == _OPENMETRICS for one in accept.split(",")):
        text: bytes = openmetrics.generate_latest(found)  # type: ignore[no-untyped-call]  # theirs is untyped
        return text, openmetrics.CONTENT_TYPE_LATEST
    return generate_latest(found), CONTENT_TYPE_PLAIN_0_0_4


class _Found:
    """What an encoder takes: something that collects."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def exposed(snapshot: Snapshot, *, rules_enabled: int) -> Iterator[Metric]:
    """Every family, in the catalogue's order; what nobody knows is left out.

    Args:
        snapshot: the service at one moment.
        rules_enabled: in this process.
    """
    by_family: dict[str, dict[Series, int]] = {family.name: {} for family in COUNTED}
    for series, count in snapshot.counted.items():
        by_family[series.family][series] = count
    for family in COUNTED:
        counts = by_family[family.name]
        if family.kind is Kind.HISTOGRAM:
            yield _histogram(family, counts)
        else:
            zeros: dict[tuple[str, ...], float] = dict.fromkeys(_combinations(family), 0)
            yield _simple(family, zeros | {series.words: count for series, count in counts.items()})
    for family, values in _looked_up(snapshot, rules_enabled).items():
        yield _simple(family, values)


def _combinations(family: Family) -> list[tuple[str, ...]]:
    """All that the labels of a family may say where that is known and little: a rate needs a first 0."""
    found: list[tuple[str, ...]] = [()]
    for label in family.labels:
        found = [(*words, word) for words in found for word in sorted(label.words or ())]
    return found if len(found) <= MOST_COMBINATIONS else []


def _simple(family: Family, values: Mapping[tuple[str, ...], float]) -> Metric:
    make = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
    metric = make(family.name, family.help, labels=[label.name for label in family.labels])
    for words, value in sorted(values.items()):
        metric.add_metric(list(words), value)
    return metric


def _histogram(family: Family, counts: Mapping[Series, int]) -> Metric:
    metric = HistogramMetricFamily(family.name, family.help, labels=[label.name for label in family.labels])
    bounds = [str(float(bound)) for bound in family.buckets] + ["+Inf"]
    for words in sorted({series.words for series in counts} | set(_combinations(family))):
        cumulated = 0
        buckets = []
        for number, bound in enumerate(bounds):
            cumulated += counts.get(Series(family.name, words, str(number)), 0)
            buckets.append((bound, float(cumulated)))
        seconds = counts.get(Series(family.name, words, SUM), 0) / 1e6
        metric.add_metric(list(words), buckets, sum_value=seconds)
    return metric


def _looked_up(snapshot: Snapshot, rules_enabled: int) -> dict[Family, dict[tuple[str, ...], float]]:
    healthy = snapshot.subscription_healthy
    queues, limiters, budgets = snapshot.queues, snapshot.limiters, snapshot.budgets
    return {
        catalogue.REDIS_UP: {(): 1},
        catalogue.ENTRIES: {(state,): count for state, count in snapshot.entries.items()},
        catalogue.QUEUE_JOBS: {
            (name, status): count
            for name, one in queues.items()
            for status, count in (("queued", one.queued), ("scheduled", one.scheduled))
        },
        catalogue.QUEUE_OLDEST_SECONDS: {(name,): one.oldest_seconds for name, one in queues.items()},
        catalogue.BACKLOG: {(): snapshot.backlog},
        catalogue.WORKERS: {(): snapshot.workers},
        catalogue.HALTED: {(): snapshot.halted},
        catalogue.BREAKERS: {(): snapshot.breakers},
        catalogue.HELD: {(): snapshot.held},
        catalogue.DEAD_LETTERS: {(): snapshot.dead_letters},
        catalogue.QUARANTINED: {(): snapshot.quarantined},
        catalogue.BUDGET_LIMIT: {(one.scope, one.period): one.limit for one in budgets},
        catalogue.BUDGET_SPENT: {(one.scope, one.period): one.spent for one in budgets},
        catalogue.LIMITER_RATE: {
            (group,): one.calls_per_second
            for group, one in limiters.items()
            if one.calls_per_second is not None
        },
        catalogue.LIMITER_WAITING: {(group,): one.waiting for group, one in limiters.items()},
        catalogue.LIMITER_PARKED_SECONDS: {(group,): one.parked_seconds for group, one in limiters.items()},
        catalogue.RATE_LIMITED: {(group,): one.refusals for group, one in limiters.items()},
        catalogue.SUBSCRIPTION: {} if healthy is None else {(): healthy},
        catalogue.MISSED: {(): snapshot.missed},
        catalogue.RULES_ENABLED: {(): rules_enabled},
        catalogue.RULES_PROBLEM: {
            (role, host): wrong for (role, host), wrong in snapshot.rules_problems.items()
        },
    }
