"""What the sandbox knows about the enrichment calls it got, so that tests can prove each was made once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Call:
    """One request to `POST /enrich_field/` that named a record and a field.

    Attributes:
        object_id: the record named.
        field_id: the custom field named.
        started_at: Unix seconds of its arrival.
        ended_at: Unix seconds of its end; None while it is open.
        status: what was answered; None while open, and for ever where the connection was dropped or left
            silent.
        fault: the kind of the fault that struck it, or None.
        ran: whether the AI ran: what "called exactly once" counts.
        charged: credits taken.
        saved: whether the value was written.
    """

    object_id: str
    field_id: str
    started_at: float
    ended_at: float | None = None
    status: int | None = None
    fault: str | None = None
    ran: bool = False
    charged: int = 0
    saved: bool = False


@dataclass(slots=True, kw_only=True)
class Calls:
    """All enrichment calls: details if retained, counters always.

    Attributes:
        retain: keep each call in `made`.
        made: the calls in order of arrival.
        requests: how many came.
        open: how many are being worked on.
        most_open: the most at any moment.
        ran: for how many the AI ran.
        charged: credits taken.
        saved: values written.
        statuses: answers by status; None for those that got none.
        ran_by_field: runs by (record id, field id).
        requests_by_field: requests by (record id, field id), those that a fault ended too.
    """

    retain: bool = True
    made: list[Call] = field(default_factory=list)
    requests: int = 0
    open: int = 0
    most_open: int = 0
    ran: int = 0
    charged: int = 0
    saved: int = 0
    statuses: Counter[int | None] = field(default_factory=Counter)
    ran_by_field: Counter[tuple[str, str]] = field(default_factory=Counter)
    requests_by_field: Counter[tuple[str, str]] = field(default_factory=Counter)

    def begin(self, *, object_id: str, field_id: str, now: float) -> Call:
        """Note that a call arrived."""
        call = Call(object_id=object_id, field_id=field_id, started_at=now)
        if self.retain:
            self.made.append(call)
        self.requests += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        self.requests_by_field[object_id, field_id] += 1
        return call

    def run(self, call: Call, *, charged: int, saved: bool) -> None:
        """Note that the AI ran for a call, what it cost and whether the value was written."""
        call.ran = True
        call.charged = charged
        call.saved = saved
        self.ran += 1
        self.charged += charged
        self.saved += saved
        self.ran_by_field[call.object_id, call.field_id] += 1

    def end(self, call: Call, *, status: int | None, now: float) -> None:
        """Note how a call ended; None for one that got no answer."""
        call.status = status
        call.ended_at = now
        self.open -= 1
        self.statuses[status] += 1

    @property
    def most_runs_of_a_field(self) -> int:
        """The highest number of runs any (record, field) had; 1 means that each was paid for once."""
        return max(self.ran_by_field.values(), default=0)
