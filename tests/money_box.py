"""What tests and benchmarks of money share: calls that end unclearly, and waits that are cut short."""

from __future__ import annotations

import datetime as dt
import itertools
import time
from typing import TYPE_CHECKING

from service import keys
from service.sandbox.control import add_invented_leads
from service.sandbox.faults import FaultRule, Faults

if TYPE_CHECKING:
    from collections.abc import Callable

    from stack import Stack

ENRICH = "POST enrich_field"
AFTER_SAVING = ("drop_after", "status_after:502", "timeout_after_saved", "status_after:504", "garbage")
# of calls that take 20 ms: on however busy a machine none ends unclearly by itself
NO_TIMEOUT = "20s"
SIX_FIELDS = ("Industry", "Employee count", "Pitch", "Founded on", "Markets", "Source")


class EveryFifth(Faults):
    """Every fifth enrichment call saves its value and ends unclearly, in a different way each time."""

    def __init__(self) -> None:
        super().__init__()
        self._calls = itertools.count(1)
        self._kinds = itertools.cycle(AFTER_SAVING)

    def __bool__(self) -> bool:
        return True

    def pick(self, *, group: str, **_: object) -> FaultRule | None:
        if group != ENRICH or next(self._calls) % 5:
            return None
        return FaultRule(kind=next(self._kinds))


def rules_for(*fields: str, timeout: str = NO_TIMEOUT, more: str = "", budget: str = "") -> str:
    """A rules file with one rule a field that is called like it."""
    head = ["version: 1", f"defaults: {{settle: 0s, timeout: {timeout}}}", budget, "rules:"]
    return "\n".join([*head, *(f"  - {{name: {one}, object: lead, field: {one}{more}}}" for one in fields)])


def plan(stack: Stack, *, leads: int, rules: int = 1, seconds: float = 120.0) -> None:
    """Have leads made, and wait until all that follows from them is in the ledger."""
    stack.in_sandbox(lambda world: add_invented_leads(world, leads))
    stack.wait(lambda: sum(stack.counts().values()) >= leads * rules, seconds=seconds)


def all_ended(stack: Stack, *, seconds: float = 150.0) -> dict[str, int]:
    """Wait until everything is final, cutting every wait short; how many ended how."""

    def look() -> dict[str, int] | None:
        stack.let_waits_end()
        counts = stack.counts()
        return None if {"planned", "waiting", "calling"} & counts.keys() else counts

    return stack.wait(look, seconds=seconds)


def all_wait(stack: Stack, accept: Callable[[str], bool], *, count: int, seconds: float = 120.0) -> list[str]:
    """Wait until so many enrichments wait for such a reason and nothing is in hand; their reasons."""

    def look() -> list[str] | None:
        if {"planned", "calling"} & stack.counts().keys():
            return None
        names = [keys.entry(one.decode()) for one in stack.redis.zrange(keys.ACTIVE, 0, -1)]
        with stack.redis.pipeline() as pipeline:
            for name in names:
                pipeline.hmget(name, "state", "reason")
            rows = pipeline.execute()
        reasons = [reason.decode() for state, reason in rows if state == b"waiting"]
        ready = len(names) == len(reasons) == count and all(map(accept, reasons))
        return reasons if ready else None

    return stack.wait(look, seconds=seconds)


def zone_where_it_is_noon() -> str:
    """A time zone in which no day begins while a test runs."""
    hours = 12 - dt.datetime.fromtimestamp(time.time(), dt.UTC).hour
    return f"Etc/GMT{-hours:+d}"


def turn_windows(stack: Stack) -> None:
    """As if a new day and month had begun: no credit is spent, and what waits for one is due."""
    for name in stack.redis.scan_iter(match=keys.spent("*", "*")):
        stack.redis.delete(name)
    stack.let_waits_end()
