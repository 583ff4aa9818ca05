"""How many signed events one receiver takes on one core, all of them in Redis before they are answered.

Every share is taken in rounds: the app that only reads and the receivers get the same requests, one after the
other, in turns. A share is the median of the rounds' shares.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.deliveries import ANOTHER_KEY, Deliveries, bodies, request
from tests.bench.paced import quantile_ms, send_paced
from tests.bench.receivers import KEY, LEAD_FIELDS, Receivers
from tests.bench.redis_server import JEMALLOC
from tests.bench.rounds import each_ms, in_turns, median_ratio, per_second
from tests.bench.wrk import wrk_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from tests.bench.deliveries import Batch
    from tests.bench.figures import Figures
    from tests.bench.receivers import Receiver
    from tests.bench.rounds import Took

PARTS = ("new", "waiting", "big", "duplicates", "forged", "paced")
BODY_BYTES = 3000
BIG_BODY_BYTES = 200_000
BIG_TIMES_FEWER = 20
WARM_UP_EVENTS = 500
SECONDS = attrgetter("seconds")
WEB_CPU, REDIS_CPU, CPU = map(attrgetter, ("web_cpu_seconds", "redis_cpu_seconds", "cpu_seconds"))
PACED_FROM = 900_000_000
"""The number of the first lead that is sent at a pace; the others begin at 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingest:
    """What to run.

    Attributes:
        parts: of `PARTS`.
        events: in each round; of bodies of 200 KB a twentieth.
        rounds: of each part.
        waiting: enrichments in the queue, for the part of that name.
        paced_per_second: deliveries, for the part `paced`.
        paced_seconds: how long that part goes on.
    """

    parts: Collection[str] = PARTS
    events: int = 10_000
    rounds: int = 5
    waiting: int = 1_000_000
    paced_per_second: int = 1000
    paced_seconds: int = 15

    @classmethod
    def short(cls, parts: Collection[str] = PARTS) -> Ingest:
        """As much as tells a receiver that has become much slower."""
        return cls(parts=parts, events=3000, rounds=3, waiting=50_000, paced_seconds=5)


def run_ingest(wanted: Ingest) -> Figures:
    """Measure the parts that are wanted, one after the other.

    Raises:
        NoWrkError: see there.
        TookTooLongError: a round did not end.
        RuntimeError: a process has ended, an answer was another than expected, or an event that was
            accepted is not in Redis with all of its fields.
    """
    wrk_binary()
    with tempfile.TemporaryDirectory() as temporary, Receivers(Path(temporary)) as receivers:
        deliveries = Deliveries(Path(temporary))
        bench = _Bench(wanted, deliveries, bare=receivers.bare(), web=receivers.web("empty"))
        figures: Figures = {
            "events_in_a_round": wanted.events,
            "rounds": wanted.rounds,
            "redis_has_jemalloc": float(JEMALLOC is not None),
        }
        if "waiting" in wanted.parts:
            full = receivers.web("full", waiting=wanted.waiting)
            figures |= bench.new(full) | {"waiting_jobs": wanted.waiting}
        elif "new" in wanted.parts:
            figures |= bench.new(None)
        for name, part in {
            "big": bench.big,
            "duplicates": bench.duplicates,
            "forged": bench.forged,
            "paced": bench.paced,
        }.items():
            if name in wanted.parts:
                figures |= part()
        receivers.check()
        return figures


class _Bench:
    def __init__(self, wanted: Ingest, deliveries: Deliveries, *, bare: Receiver, web: Receiver) -> None:
        self._wanted = wanted
        self._deliveries = deliveries
        self._bare = bare
        self._web = web

    def new(self, full: Receiver | None) -> Figures:
        """Leads that were never there, also where many jobs wait already."""
        receivers = {"bare": self._bare, "new": self._web}
        if full is not None:
            receivers["waiting"] = full
        rounds = self._rounds(receivers, self._new_leads)
        figures = _compared("new", rounds["new"], rounds["bare"])
        if full is not None:
            figures |= _compared("waiting", rounds["waiting"], rounds["bare"])
            figures["waiting_to_empty_rate"] = median_ratio(rounds["new"], rounds["waiting"], SECONDS)
            figures["waiting_to_empty_cpu"] = median_ratio(rounds["waiting"], rounds["new"], CPU)
        return figures

    def big(self) -> Figures:
        """New leads with bodies of 200 KB."""
        few = max(1, self._wanted.events // BIG_TIMES_FEWER)
        return self._part("big", lambda: self._deliveries.batch(few, body_bytes=BIG_BODY_BYTES))

    def duplicates(self) -> Figures:
        """Deliveries that were accepted a moment before."""

        def known() -> Batch:
            batch = self._new_leads()
            self._web.take(batch)
            return batch

        return self._part("duplicates", known)

    def forged(self) -> Figures:
        """Deliveries that somebody else has signed."""
        return self._part(
            "forged",
            lambda: self._deliveries.batch(
                self._wanted.events, body_bytes=BODY_BYTES, key=ANOTHER_KEY, status=401
            ),
        )

    def paced(self) -> Figures:
        """New leads at a steady pace: how long an answer takes."""
        count = self._wanted.paced_per_second * self._wanted.paced_seconds
        leads = range(PACED_FROM, PACED_FROM + count)
        requests = [request(body, key=KEY) for body in bodies(leads, body_bytes=BODY_BYTES)]
        figures: Figures = {"paced_events_per_second": self._wanted.paced_per_second}
        for name, receiver in (("paced_bare", self._bare), ("paced", self._web)):
            took = send_paced(
                requests, port=receiver.port, per_second=self._wanted.paced_per_second, status=202
            )
            figures |= {f"{name}_p50_ms": quantile_ms(took, 0.5), f"{name}_p99_ms": quantile_ms(took, 0.99)}
        self._web.check_planned(leads, fields=len(LEAD_FIELDS))
        return figures

    def _new_leads(self) -> Batch:
        return self._deliveries.batch(self._wanted.events, body_bytes=BODY_BYTES)

    def _part(self, name: str, batch: Callable[[], Batch]) -> Figures:
        rounds = self._rounds({"bare": self._bare, name: self._web}, batch)
        return _compared(name, rounds[name], rounds["bare"])

    def _rounds(self, receivers: dict[str, Receiver], make: Callable[[], Batch]) -> dict[str, list[Took]]:
        """What each receiver took for each round's batch; all that was accepted is in Redis.

        One round more goes before them and does not count: Redis has grown or was emptied just then. Each
        round has new processes, and a few new leads before what is timed.
        """
        rounds: dict[str, list[Took]] = {name: [] for name in receivers}
        for number in range(1 + self._wanted.rounds):
            batch = make()
            warm_up = self._deliveries.batch(WARM_UP_EVENTS, body_bytes=BODY_BYTES)
            for name in in_turns(list(receivers), number):
                receivers[name].renew()
                receivers[name].take(warm_up)
                took = receivers[name].take(batch)
                if number:
                    rounds[name].append(took)
                if receivers[name].redis is not None:
                    accepted = len(LEAD_FIELDS) if batch.status == 202 else 0
                    receivers[name].check_planned(batch.numbers, fields=accepted)
            self._web.forget()
            batch.path.unlink()
            warm_up.path.unlink()
        return rounds


def _compared(name: str, rounds: list[Took], bare: list[Took]) -> Figures:
    return {
        f"{name}_per_second": per_second(rounds),
        f"{name}_bare_per_second": per_second(bare),
        f"{name}_share_of_bare": median_ratio(bare, rounds, SECONDS),
        f"{name}_share_of_bare_by_cpu": median_ratio(bare, rounds, WEB_CPU),
        f"{name}_web_cpu_ms": each_ms(rounds, WEB_CPU),
        f"{name}_redis_cpu_ms": each_ms(rounds, REDIS_CPU),
        f"{name}_bare_cpu_ms": each_ms(bare, WEB_CPU),
    }
