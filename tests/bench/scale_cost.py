"""What an event costs of CPU time, in `web` and in Redis, as the backlog grows and as rules grow.

All sizes are there at once, each a `web` with a Redis of its own, and get their events in turns.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tests.bench.deliveries import Deliveries
from tests.bench.ingest import BODY_BYTES
from tests.bench.receivers import LEAD_FIELDS, Receivers
from tests.bench.rounds import each_ms, in_turns, median_ratio
from tests.bench.sweeper_cost import sweeper_cost
from tests.bench.wrk import wrk_binary

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from tests.bench.figures import Figures
    from tests.bench.receivers import Receiver
    from tests.bench.rounds import Took

PARTS = ("backlog", "rules", "sweeper")
LEAST_EVENTS = 100
CONNECTIONS = 8
"""Few: with many, events of hundreds of fields would wait for each other longer than the receiver waits."""
WEB_CPU, REDIS_CPU, CPU = map(attrgetter, ("web_cpu_seconds", "redis_cpu_seconds", "cpu_seconds"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What to run.

    Attributes:
        parts: of `PARTS`.
        backlogs: enrichments that wait; the others are compared with the first.
        rules: how many are in the file, likewise.
        events: in each round; fewer where each asks many rules.
        rounds: of each size.
    """

    parts: Collection[str] = PARTS
    backlogs: Sequence[int] = (0, 10_000, 100_000, 1_000_000)
    rules: Sequence[int] = (1, 10, 50, 200)
    events: int = 3000
    rounds: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size:
    """One row: a receiver, and what each event makes it plan."""

    size: int
    planned: int
    events: int
    receiver: Receiver


def run_scale_cost(wanted: Growth) -> dict[str, list[Figures]]:
    """The tables that are wanted, a row for each size.

    Raises:
        NoWrkError: see there.
        TookTooLongError: a round did not end.
        RuntimeError: see `run_ingest`.
    """
    wrk_binary()
    tables: dict[str, list[Figures]] = {}
    if {"backlog", "sweeper"} & set(wanted.parts):
        with tempfile.TemporaryDirectory() as temporary, Receivers(Path(temporary)) as receivers:
            sizes = [
                _Size(
                    size=size,
                    planned=len(LEAD_FIELDS),
                    events=wanted.events,
                    receiver=receivers.web(str(size), waiting=size),
                )
                for size in wanted.backlogs
            ]
            if "backlog" in wanted.parts:
                tables["waiting"] = _table("waiting", sizes, wanted, Path(temporary))
            if "sweeper" in wanted.parts:
                tables["sweeper"] = [
                    sweeper_cost(one.receiver, waiting=one.size) for one in sizes if one.size
                ]
    if "rules" in wanted.parts:
        for matching in ("one", "all"):
            with tempfile.TemporaryDirectory() as temporary, Receivers(Path(temporary)) as receivers:
                sizes = [_of_rules(receivers, count, matching, wanted.events) for count in wanted.rules]
                tables[f"rules, {matching} matching"] = _table("rules", sizes, wanted, Path(temporary))
    return tables


def _of_rules(receivers: Receivers, count: int, matching: Literal["one", "all"], events: int) -> _Size:
    fields = {f"cf_{number:05}": f"Field {number}" for number in range(count)}
    planned = count if matching == "all" else 1
    return _Size(
        size=count,
        planned=planned,
        events=max(LEAST_EVENTS, events // count),
        receiver=receivers.web(str(count), rules=_rules(fields, matching), fields=fields),
    )


def _rules(fields: Mapping[str, str], matching: Literal["one", "all"]) -> str:
    """A rule for each field. Of those that shall not match each has a condition, judged on each event."""
    lines = ["version: 1", "defaults: {settle: 0s}", "rules:"]
    for number, name in enumerate(fields.values()):
        condition = (
            f", when: 'lead.status_label == \"Stage {number}\"'" if number and matching == "one" else ""
        )
        lines.append(f"  - {{name: {name}, object: lead, field: {name}{condition}}}")
    return "\n".join(lines) + "\n"


def _table(name: str, sizes: Sequence[_Size], wanted: Growth, directory: Path) -> list[Figures]:
    deliveries = Deliveries(directory)
    took: dict[int, list[Took]] = {one.size: [] for one in sizes}
    by_size = {str(one.size): one for one in sizes}
    # one round more, as Redis has grown just then
    for number in range(1 + wanted.rounds):
        for key in in_turns(list(by_size), number):
            one = by_size[key]
            batch = deliveries.batch(one.events, body_bytes=BODY_BYTES)
            round_took = one.receiver.take(batch, connections=CONNECTIONS)
            if number:
                took[one.size].append(round_took)
            one.receiver.check_planned(batch.numbers, fields=one.planned)
            batch.path.unlink()
    first = took[sizes[0].size]
    return [
        {
            name: one.size,
            "planned_by_an_event": one.planned,
            "web_cpu_ms": each_ms(took[one.size], WEB_CPU),
            "redis_cpu_ms": each_ms(took[one.size], REDIS_CPU),
            "web_cpu_to_first": median_ratio(took[one.size], first, WEB_CPU),
            "redis_cpu_to_first": median_ratio(took[one.size], first, REDIS_CPU),
            "cpu_to_first": median_ratio(took[one.size], first, CPU),
            "cpu_of_a_field_to_first": round(
                median_ratio(took[one.size], first, CPU) * sizes[0].planned / one.planned, 3
            ),
        }
        for one in sizes
    ]
