"""What a job works with, and what it remembers while it runs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from service.tracing import OFF, UNWATCHED

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable
    from random import Random

    from structlog.typing import FilteringBoundLogger

    from service.knowledge import Knowledge
    from service.ledger import Charge, Claim, Ledger
    from service.meter import Meter
    from service.tracing import Step, Tracing
    from workers.close_api import CloseApi
    from workers.records import RecordReader
    from workers.throttle import Throttle

ENRICH_GROUP = "enrich"
READ_GROUP = "read"
SEARCH_GROUP = "search"


@dataclass(slots=True)
class Hands:
    """What this process has in hand: entry id to fence, and the task at work on it."""

    fences: dict[str, int] = field(default_factory=dict)
    tasks: dict[str, asyncio.Task[Any]] = field(default_factory=dict)

    def take(self, claim: Claim) -> None:
        """Remember a claim, for heartbeats."""
        self.fences[claim.entry.id] = claim.fence
        task = asyncio.current_task()
        if task is not None:
            self.tasks[claim.entry.id] = task

    def drop(self, claim: Claim) -> None:
        """Forget a claim, unless the entry is in hand anew."""
        if self.fences.get(claim.entry.id) == claim.fence:
            del self.fences[claim.entry.id]
            self.tasks.pop(claim.entry.id, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """All that a job works with; made once for a process by `workers.runtime`."""

    ledger: Ledger
    api: CloseApi
    records: RecordReader
    pace: Throttle
    zone: dt.tzinfo
    own_api_key_id: str | None
    knowledge: Callable[[], Knowledge]
    random: Random
    now_ms: Callable[[], int]
    log: FilteringBoundLogger
    meter: Meter
    worker: str
    hands: Hands = field(default_factory=Hands)
    tracing: Tracing = OFF


@dataclass(slots=True)
class Progress:
    """How far an execution has come, for whoever has to put it back.

    Attributes:
        trial: Close is asked although calls are halted.
        asking: the call may have left.
        done: the enrichment is out of this execution's hands.
        charges: the budgets that its call was charged to.
        step: the execution, for tracing.
    """

    trial: bool = False
    asking: bool = False
    done: bool = False
    charges: tuple[Charge, ...] = ()
    step: Step = UNWATCHED
