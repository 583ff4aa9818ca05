"""What can be wrong between the ledger, its indexes and RQ, told from facts that were read. Pure."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from service.enrichment import (
    ACTIVE_STATES,
    ENTRY_VERSION,
    NEEDS_A_PERSON,
    RETENTION_SECONDS,
    State,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_OUR_JOB = re.compile(r"[a-z2-7]{20}-(?:[0-9]{1,6}-)?[0-9a-f]{8,10}", re.ASCII)


class Kind(StrEnum):
    """One kind of thing that is wrong."""

    NO_JOB = "no_job"
    WORKER_LOST = "worker_lost"
    UNWATCHED = "unwatched"
    MISINDEXED = "misindexed"
    UNREADABLE = "unreadable"
    ORPHAN = "orphan"
    JOB_WITHOUT_ENTRY = "job_without_entry"
    JOB_STALE = "job_stale"
    JOB_FOREIGN = "job_foreign"
    JOB_ABANDONED = "job_abandoned"
    COUNT = "count"


KIND_MEANINGS: Mapping[Kind, str] = {
    Kind.NO_JOB: "enrichments wait, and no job delivers them",
    Kind.WORKER_LOST: "enrichments were in the hands of a worker that has fallen silent",
    Kind.UNWATCHED: "unfinished enrichments are in no index, so nobody would miss them",
    Kind.MISINDEXED: "enrichments are in an index that does not fit their state, or missing in one",
    Kind.UNREADABLE: "entries are not ours to read",
    Kind.ORPHAN: "ids in an index have no entry",
    Kind.JOB_WITHOUT_ENTRY: "jobs belong to no entry",
    Kind.JOB_STALE: "jobs are out of date: their enrichment has ended, or another job delivers it",
    Kind.JOB_FOREIGN: "jobs in our queues are not ours",
    Kind.JOB_ABANDONED: "jobs were being run by a worker that has fallen silent",
    Kind.COUNT: "counts of a state differ from the entries in it",
}
"""Each kind in words, in the plural, shown to people after its number."""

MOST_EXAMPLES = 10

HOPELESS = frozenset({Kind.UNREADABLE, Kind.JOB_FOREIGN})
"""Nothing here knows what is right, so nothing is changed: a person has to look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryFacts:
    """What Redis says about one entry at one moment.

    Attributes:
        state: as it is written; None where there is no entry.
        version: of its format.
        holder: the worker that has it in hand, or "".
        ended_ms, dropped_ms: when it ended, and when a person had done with it; None has not happened.
        active_ms, held_ms, attention_ms: its scores in the three indexes; None where it is not in one.
        has_job: some worker will get its job, or has just taken it.
        now_ms: that moment.
    """

    state: str | None
    version: int = ENTRY_VERSION
    holder: str = ""
    ended_ms: int | None = None
    dropped_ms: int | None = None
    active_ms: float | None = None
    held_ms: float | None = None
    attention_ms: float | None = None
    has_job: bool = True
    now_ms: int

    @property
    def needs_job(self) -> bool:
        """Whether nothing but its job would bring it to a worker."""
        return self.state in ACTIVE_STATES and self.held_ms is None and not self.holder


def entry_problem(facts: EntryFacts) -> Kind | None:
    """What is wrong with one entry or with an id that has none, the worst first; None where nothing is."""
    if facts.state is None:
        return _orphan(facts)
    if facts.version > ENTRY_VERSION:
        return None  # a newer release knows better
    if facts.state not in set(State):
        return Kind.UNREADABLE
    if State(facts.state) in ACTIVE_STATES:
        return _unfinished(facts)
    listed = facts.attention_ms is not None
    misindexed = (
        facts.active_ms is not None or facts.held_ms is not None or listed is not _should_be_listed(facts)
    )
    return Kind.MISINDEXED if misindexed else None


def _orphan(facts: EntryFacts) -> Kind | None:
    if facts.active_ms is not None or facts.held_ms is not None:
        return Kind.ORPHAN
    # an entry that needs a person expires like any other, and its id leaves the list when somebody meets it
    expired = facts.attention_ms is None or facts.attention_ms + RETENTION_SECONDS * 1000 <= facts.now_ms
    return None if expired else Kind.ORPHAN


def _unfinished(facts: EntryFacts) -> Kind | None:
    if facts.held_ms is None:
        if facts.active_ms is None:
            return Kind.UNWATCHED
        if facts.holder and facts.active_ms <= facts.now_ms:
            return Kind.WORKER_LOST
        if facts.needs_job and not facts.has_job:
            return Kind.NO_JOB
    return None if facts.attention_ms is None else Kind.MISINDEXED


def _should_be_listed(facts: EntryFacts) -> bool:
    if facts.state not in NEEDS_A_PERSON or facts.ended_ms is None:
        return False
    return facts.dropped_ms is None or facts.dropped_ms < facts.ended_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """What Redis says about a waiting job of RQ's at one moment.

    Attributes:
        job_id: RQ's.
        present: it is still where it was found.
        entry_state, entry_job: the entry's state and the job that delivers it; None where there is no entry.
    """

    job_id: str
    present: bool = True
    entry_state: str | None = None
    entry_job: str | None = None


def job_problem(facts: JobFacts) -> Kind | None:
    """What is wrong with a job that waits to be run; None where nothing is."""
    if not facts.present:
        return None
    if not _OUR_JOB.fullmatch(facts.job_id):
        return Kind.JOB_FOREIGN
    if facts.entry_state is None:
        return Kind.JOB_WITHOUT_ENTRY
    ended = facts.entry_state in set(State) - ACTIVE_STATES
    return Kind.JOB_STALE if ended or facts.entry_job != facts.job_id else None


def wrong_counts(*, counted: Mapping[str, int], actual: Mapping[str, int], changes: int) -> dict[str, int]:
    """By how much each count must be raised to be right; only those that are certainly wrong.

    Args:
        counted: the counts as they are kept.
        actual: how many entries of each state were met.
        changes: how many changes of state happened while the entries were met. Each can put a number off by
            one, so only a difference of more than twice as many is believed: correcting it always helps.

    A finished entry expires, and its count stays: such a count says how many there have been. It is wrong
    only where more are there than it says.
    """
    found = {}
    for state in State:
        missing = actual.get(state, 0) - counted.get(state, 0)
        if abs(missing) > 2 * changes and (missing > 0 or state in ACTIVE_STATES):
            found[str(state)] = missing
    return found


@dataclass(slots=True)
class Report:
    """What a check has found; it grows while the check goes on.

    Attributes:
        entries: how many it has looked at.
        jobs: how many jobs of RQ's.
        changes: how many changes of state happened while entries were counted.
        found: how many of each kind were wrong.
        repaired: how many of those are right now.
        examples: a few ids of each kind.
    """

    entries: int = 0
    jobs: int = 0
    changes: int = 0
    found: Counter[Kind] = field(default_factory=Counter)
    repaired: Counter[Kind] = field(default_factory=Counter)
    examples: dict[Kind, list[str]] = field(default_factory=dict)

    @property
    def left(self) -> int:
        """How much is still wrong."""
        return self.found.total() - self.repaired.total()

    def note(self, kind: Kind, example: str, *, repaired: bool) -> None:
        """Write one thing down."""
        self.found[kind] += 1
        self.repaired[kind] += repaired
        examples = self.examples.setdefault(kind, [])
        if len(examples) < MOST_EXAMPLES:
            examples.append(example)
