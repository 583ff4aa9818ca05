"""Every family of metrics, once: its name, what it counts, its labels and buckets. Pure.

The families of `COUNTED` are counted by `service.meter` in every process and added up in Redis, where
`service.metrics` reads them; those of `READ` are looked up when somebody scrapes. Label sets are bounded:
fixed words, the states, the queues, and the names of rules, of which Redis keeps the first `MOST_RULES`.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from service.enrichment import FINAL_STATES
from service.transitions import Cause

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "close_enrich_"

OTHER = "other"
"""What a label says of a word that nobody expected, and of a rule beyond `MOST_RULES`."""

MOST_RULES = 200

_NUMBERS = tuple(map(str, range(100)))
"""More than any histogram has buckets."""

SUM = "sum"
"""The part of a histogram's series that adds up what was observed, in microseconds."""


class Kind(StrEnum):
    """Prometheus's types (https://prometheus.io/docs/concepts/metric_types/)."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Label:
    """A label's name, and the words it may say; None for names of rules, budgets or hosts."""

    name: str
    words: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Family:
    """One family of metrics; there is one object for each, so comparing them is quick.

    Attributes:
        name: with our prefix; a counter's ends in `_total`.
        kind: counter, gauge or histogram.
        help: what it counts, in a sentence.
        labels: in this order.
        buckets: of a histogram, the upper bounds in seconds, without infinity.
        charted: the labels that are kept minute by minute for the dashboard's charts; None for no chart.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()
    charted: tuple[str, ...] | None = None

    def words(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        """The labels' words in order; `OTHER` for one that is none of those expected.

        Raises:
            KeyError: a label is missing.
        """
        if not self.labels:
            return ()
        return tuple(
            [
                word if label.words is None or word in label.words else OTHER
                for label in self.labels
                for word in (labels[label.name],)
            ]
        )

    def bucket(self, seconds: float) -> str:
        """The part that an observation falls into: its bucket's number; the last one is infinity's."""
        return _NUMBERS[bisect_left(self.buckets, seconds)]

    def has_part(self, part: str) -> bool:
        """Whether a series of this family may have such a part, see `Series`."""
        if self.kind is not Kind.HISTOGRAM:
            return part == ""
        return part == SUM or part in map(str, range(len(self.buckets) + 1))

    @property
    def rule_at(self) -> int | None:
        """Which of the labels names a rule, or None."""
        return next((at for at, label in enumerate(self.labels) if label is RULE), None)

    @property
    def samples(self) -> tuple[str, ...]:
        """The names that a query can ask for."""
        if self.kind is Kind.HISTOGRAM:
            return tuple(self.name + end for end in ("_bucket", "_count", "_sum"))
        return (self.name,)


class Series(msgspec.Struct, frozen=True, array_like=True):
    """One number of a family, as it is named in Redis.

    Attributes:
        family: the family's name.
        words: the labels' words.
        part: of a histogram, the number of a bucket or `SUM`; "" otherwise.
    """

    family: str
    words: tuple[str, ...] = ()
    part: str = ""


def encode_series(series: Series) -> str:
    """A series' name in a Redis hash."""
    return msgspec.json.encode(series).decode()


def decode_series(raw: bytes, *, charted: bool = False) -> Series | None:
    """A series by its name in a Redis hash; None for what another version may have written.

    Args:
        raw: the name.
        charted: it is a minute's, with the labels that charts keep.
    """
    try:
        series = msgspec.json.decode(raw, type=Series)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    family = COUNTED_BY_NAME.get(series.family)
    if family is None or (charted and family.charted is None) or not family.has_part(series.part):
        return None
    labels = family.charted if charted and family.charted is not None else family.labels
    return series if len(series.words) == len(labels) else None


def charted_series(family: Family, words: tuple[str, ...], part: str) -> Series | None:
    """The series of a minute that one of all time adds to; None where its family is not charted."""
    if family.charted is None:
        return None
    kept = tuple(
        word for label, word in zip(family.labels, words, strict=True) if label.name in family.charted
    )
    return Series(family.name, kept, part)


RULE = Label("rule")
_RESULT = Label(
    "result", frozenset({"accepted", "duplicate", "ignored", "quarantined", "refused", "unavailable"})
)
_PLANNED = Label("result", frozenset({"planned", "reopened", "again", "held", "duplicate"}))
_OUTCOME = Label("outcome", frozenset(map(str, FINAL_STATES)))
_CAUSE = Label("cause", frozenset(map(str, Cause)))
_ANSWER = Label(
    "outcome",
    frozenset({"found", "nothing", "rate_limited", "retry", "ambiguous", "gone", "rejected", "halt"}),
)
_LANE = Label("lane", frozenset({"live", "bulk"}))
_QUEUE = Label("queue")
_GROUP = Label("group")
_BUDGET = (Label("scope"), Label("period", frozenset({"day", "month"})))

EVENTS = Family(
    name=PREFIX + "events_total",
    kind=Kind.COUNTER,
    help="Deliveries answered, by what became of them.",
    labels=(_RESULT,),
    charted=("result",),
)
ACCEPT_SECONDS = Family(
    name=PREFIX + "accept_seconds",
    kind=Kind.HISTOGRAM,
    help="How long it took to answer a delivery that was signed.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)
PLANNED = Family(
    name=PREFIX + "planned_total",
    kind=Kind.COUNTER,
    help="Enrichments that events, reconciliation and backfills asked for, by what came of that.",
    labels=(RULE, _PLANNED),
    charted=("result",),
)
DONE = Family(
    name=PREFIX + "done_total",
    kind=Kind.COUNTER,
    help="Enrichments that have ended, by how.",
    labels=(RULE, _OUTCOME),
    charted=("outcome",),
)
LEAD_TO_FILLED_SECONDS = Family(
    name=PREFIX + "lead_to_filled_seconds",
    kind=Kind.HISTOGRAM,
    help="From an enrichment's planning, a moment after its event, to its value in Close.",
    labels=(RULE, _LANE),
    buckets=(1, 2.5, 5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1800, 3600, 21600),
    charted=("lane",),
)
CALL_SECONDS = Family(
    name=PREFIX + "call_seconds",
    kind=Kind.HISTOGRAM,
    help="Calls to Close for a field, by what came back.",
    labels=(_ANSWER,),
    buckets=(0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 13, 20, 30, 45, 60, 90, 120, 180),
    charted=("outcome",),
)
WAITS = Family(
    name=PREFIX + "waits_total",
    kind=Kind.COUNTER,
    help="Enrichments put back for later, by why.",
    labels=(_CAUSE,),
    charted=("cause",),
)
PAID = Family(
    name=PREFIX + "credits_paid_total",
    kind=Kind.COUNTER,
    help="Calls that Close may have charged for.",
    labels=(RULE,),
    charted=(),
)

COUNTED = (EVENTS, ACCEPT_SECONDS, PLANNED, DONE, LEAD_TO_FILLED_SECONDS, CALL_SECONDS, WAITS, PAID)
"""What processes count."""

COUNTED_BY_NAME: Mapping[str, Family] = {family.name: family for family in COUNTED}


def _gauge(name: str, words: str, *labels: Label) -> Family:
    return Family(name=PREFIX + name, kind=Kind.GAUGE, help=words, labels=labels)


REDIS_UP = _gauge("redis_up", "1 while Redis answers; without it, no other family is there.")
ENTRIES = _gauge("entries", "Enrichments in the ledger, by state.", Label("state"))
QUEUE_JOBS = _gauge("queue_jobs", "Jobs of a queue, by whether they can run now.", _QUEUE, Label("status"))
QUEUE_OLDEST_SECONDS = _gauge(
    "queue_oldest_seconds", "How long the oldest job that could run has waited for a worker.", _QUEUE
)
BACKLOG = _gauge("backlog_events", "Events kept until Close's fields are known.")
WORKERS = _gauge("workers", "Workers alive.")
HALTED = _gauge("halted", "1 while all calls are halted.")
BREAKERS = _gauge("breakers_open", "Fields that are not called because their calls keep timing out.")
HELD = _gauge("held", "Enrichments that the burst guard holds.")
DEAD_LETTERS = _gauge("dead_letters", "Enrichments that ended without an answer and need a person.")
QUARANTINED = _gauge("quarantined", "Signed deliveries that could not be read.")
BUDGET_LIMIT = _gauge("budget_limit_credits", "What a budget allows in its day or month.", *_BUDGET)
BUDGET_SPENT = _gauge("budget_spent_credits", "What is spent or reserved of a budget.", *_BUDGET)
LIMITER_RATE = _gauge("limiter_calls_per_second", "The pace that the limiter has learned.", _GROUP)
LIMITER_WAITING = _gauge("limiter_waiting", "Calls that wait for their turn.", _GROUP)
LIMITER_PARKED_SECONDS = _gauge("limiter_parked_seconds", "For how long no call may leave.", _GROUP)
SUBSCRIPTION = _gauge(
    "subscription_healthy", "1 where the last look at the webhook subscription found nothing wrong."
)
RULES_ENABLED = _gauge("rules_enabled", "Rules in force in the process that answers the scrape.")
RULES_PROBLEM = _gauge(
    "rules_problem",
    "1 where a process of that role and host cannot use the rules file as it is.",
    Label("role", frozenset({"web", "worker", OTHER})),
    Label("host"),
)
RATE_LIMITED = Family(
    name=PREFIX + "rate_limited_total",
    kind=Kind.COUNTER,
    help="Answers of Close with status 429 since its limiter began.",
    labels=(_GROUP,),
)
MISSED = Family(
    name=PREFIX + "reconcile_missed_events_total",
    kind=Kind.COUNTER,
    help="Events of Close's log that no delivery had brought.",
)

READ = (
    REDIS_UP,
    ENTRIES,
    QUEUE_JOBS,
    QUEUE_OLDEST_SECONDS,
    BACKLOG,
    WORKERS,
    HALTED,
    BREAKERS,
    HELD,
    DEAD_LETTERS,
    QUARANTINED,
    BUDGET_LIMIT,
    BUDGET_SPENT,
    LIMITER_RATE,
    LIMITER_WAITING,
    LIMITER_PARKED_SECONDS,
    RATE_LIMITED,
    SUBSCRIPTION,
    MISSED,
    RULES_ENABLED,
    RULES_PROBLEM,
)
"""What is looked up at a scrape."""

FAMILIES = (*COUNTED, *READ)
"""Every family, in the order in which they are exposed and explained."""
