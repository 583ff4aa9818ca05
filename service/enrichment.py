"""One enrichment: its identity, its states and its ledger entry. Pure; the contract between web and workers.

An enrichment is one custom field of one lead or contact. Its ledger entry in Redis is the truth about it; an
RQ job only delivers it to a worker. Every wait makes a new job: a job id is an entry's id and a fresh token.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ENTRY_VERSION = 2
"""Written into every entry, and into the id of each job that delivers it. A worker leaves newer ones alone.

2 leaves out what is usual.
"""

SETTLES = "lets the record settle"
"""Why an enrichment waits that has just been planned."""

USUAL_QUEUE = "enrich"
"""The RQ queue that carries an enrichment unless its entry says otherwise."""

ENTRY_ID_LENGTH = 20
"""100 bits in base32: two enrichments among a billion share an id with a chance below 1e-12."""

RETENTION_SECONDS = 35 * 24 * 3600
"""How long a finished entry is kept: longer than Close's 30-day event log, so a replayed event finds it."""


class State(StrEnum):
    """Where an enrichment stands. All but the first three are final."""

    PLANNED = "planned"
    WAITING = "waiting"
    CALLING = "calling"
    FILLED = "filled"
    CONFIRMED = "confirmed"
    EMPTY = "empty"
    KEPT = "kept"
    PREVIEWED = "previewed"
    SKIPPED = "skipped"
    GONE = "gone"
    REJECTED = "rejected"
    HELD = "held"
    DEAD = "dead"

    @property
    def final(self) -> bool:
        """True when nothing more will happen by itself."""
        return self not in ACTIVE_STATES


ACTIVE_STATES = frozenset({State.PLANNED, State.WAITING, State.CALLING})
FINAL_STATES = frozenset(State) - ACTIVE_STATES

NEEDS_A_PERSON = frozenset({State.DEAD, State.HELD, State.REJECTED})
"""Final states that are no answer: what ends so is a dead letter until a person retries or drops it."""

STATE_MEANINGS: Mapping[State, str] = {
    State.PLANNED: "queued",
    State.WAITING: "waits: to settle, to retry, for Close's pace or for another rule",
    State.CALLING: "Close is being asked right now",
    State.FILLED: "Close found a value and saved it",
    State.CONFIRMED: "an unclear call had saved a value after all: found on reading the field back",
    State.EMPTY: "Close found nothing",
    State.KEPT: "the field already had a value; nothing was spent",
    State.PREVIEWED: "a value was computed and recorded, not saved",
    State.SKIPPED: "the rule did not want it",
    State.GONE: "the record or field no longer exists",
    State.REJECTED: "Close refused the request",
    State.HELD: "nobody knows whether a call ran; a person decides",
    State.DEAD: "all attempts were used up",
}
"""One line for each state, shown to people."""

ALLOWED: Mapping[State, frozenset[State]] = {
    **{state: frozenset(State) for state in ACTIVE_STATES},
    **{state: frozenset({State.PLANNED, State.WAITING}) for state in FINAL_STATES},
}
"""Which state may follow which. A final state is left only when a later event plans the field anew.

An active one may be followed by any, itself included: a call by a call when its worker was lost and the
field, read back, is empty, and whatever is in hand by `planned` when an event came in meanwhile.
"""


def entry_id(*, organization_id: str, object_id: str, field_id: str) -> str:
    """The one name of an enrichment: the same three ids always give the same 20 characters (a-z, 2-7)."""
    digest = hashlib.blake2b(f"{organization_id}\0{object_id}\0{field_id}".encode(), digest_size=13).digest()
    # base32 without its padding, in lower case: the standard library's takes four times as long. 13 bytes are
    # 104 bits, of which the last 4 are left out.
    bits, pair = int.from_bytes(digest, "big"), _PAIRS
    return (
        f"{pair[bits >> 94]}{pair[bits >> 84 & 1023]}{pair[bits >> 74 & 1023]}{pair[bits >> 64 & 1023]}"
        f"{pair[bits >> 54 & 1023]}{pair[bits >> 44 & 1023]}{pair[bits >> 34 & 1023]}"
        f"{pair[bits >> 24 & 1023]}{pair[bits >> 14 & 1023]}{pair[bits >> 4 & 1023]}"
    )


_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS = tuple(first + second for first in _BASE32 for second in _BASE32)
"""Two letters for every ten bits."""

_TOKEN_DIGITS = 8
_TOKENS = random.Random()  # noqa: S311  names, no secrets: the system's would cost a call of it for each event
# else a forked process would give the names that its siblings give
os.register_at_fork(after_in_child=_TOKENS.seed)
_JOB_VERSION = re.compile(rf"[a-z2-7]{{{ENTRY_ID_LENGTH}}}-([0-9]{{1,6}})-[0-9a-f]+", re.ASCII)


def new_job_ids(of_entries: Sequence[str], *, version: int) -> list[str]:
    """A fresh RQ job id for each of some entries: RQ allows letters, digits, `_` and `-`.

    Args:
        of_entries: their ids, each once.
        version: the entries'. In the id it costs no memory, and tells who may take a job before it is taken.
    """
    # one token for all: jobs of different entries differ anyway
    ending = f"{version}-{_TOKENS.getrandbits(4 * _TOKEN_DIGITS):0{_TOKEN_DIGITS}x}"
    return [f"{one}-{ending}" for one in of_entries]


def new_job_id(of_entry: str, *, version: int) -> str:
    """A fresh RQ job id for one entry; see `new_job_ids`."""
    return new_job_ids([of_entry], version=version)[0]


def job_version(job_id: str) -> int:
    """The version of the entry that a job delivers; 0 where its id, as in version 1, tells none."""
    found = _JOB_VERSION.fullmatch(job_id)
    return int(found[1]) if found else 0


def entry_of_job(job_id: str) -> str:
    """The entry a job id belongs to."""
    return job_id.partition("-")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One ledger entry, decoded. Times are Unix milliseconds of Redis's clock; None has not happened.

    Attributes:
        id: see `entry_id`.
        version: of the entry's format.
        organization_id, object_type, object_id, lead_id, field_id: what is enriched.
        field_name: the field's name when it was planned.
        rule: the rule that planned it.
        mode: that rule's mode: fill, overwrite or preview.
        queue: RQ queue that carries it.
        event_id, action: the event that planned it.
        state, reason: where it stands, and why in words.
        job_id: the RQ job that delivers it next; any other job for it is stale.
        fence: grows with each execution; only the holder of the newest may call or settle.
        holder: the worker that has it in hand, or "".
        attempts: calls that ended badly or well; waits for the pace do not count.
        calls: calls that Close may have charged for.
        failures: failed tries in a row of any kind, for backoff.
        judged: the rule's condition was met already when the event was accepted.
        ambiguous: the last call may have run; the field must be read back first. It stays with a dead letter.
        blocked: it waits for other enrichments of its record.
        value_before: JSON of the field's value before an overwriting call, or None.
        planned_ms, due_ms, changed_ms, called_ms, ended_ms: when.
        unreachable_ms: since when Close could not be reached at all, or None.
        retried_ms: when a person last had it planned anew, knowing what had happened until then.
        lost_ms: by when Redis had lost all it knew, if the record was there then: it may have been in a call.
        value: as Close returned it; None when there is none.
        confidence, reasoning: as Close returned them.
        trace: what its executions are part of, see `service.tracing.Step.context`; None unless it is traced.
    """

    id: str
    version: int
    organization_id: str
    object_type: str
    object_id: str
    lead_id: str | None
    field_id: str
    field_name: str
    rule: str
    mode: str
    queue: str
    event_id: str
    action: str
    state: State
    reason: str
    job_id: str
    fence: int
    holder: str
    attempts: int
    calls: int
    failures: int
    judged: bool
    ambiguous: bool
    blocked: bool
    value_before: str | None
    planned_ms: int
    due_ms: int | None
    changed_ms: int
    called_ms: int | None
    ended_ms: int | None
    unreachable_ms: int | None
    retried_ms: int | None = None
    lost_ms: int | None = None
    value: Any = None
    confidence: str | None = None
    reasoning: str | None = None
    trace: str | None = None

    @property
    def cause(self) -> str:
        """What planned it, for people: an event, or a backfill by its name."""
        if self.action == "backfill":
            return self.event_id.replace("-", " ", 1)
        return f"{self.action} event {self.event_id}"

    def describe(self) -> dict[str, Any]:
        """The entry as plain data for `--json` and the API; everything, including the value."""
        return {name: getattr(self, name) for name in self.__slots__}


def decode_entry(of_entry: str, raw: Mapping[bytes, bytes], *, organization_id: str = "") -> Entry | None:
    """Read a ledger hash; None where there is no entry.

    To save memory a hash leaves out what is usual: a lead of the usual organization was created, its field is
    to be filled through the usual queue, nothing has been tried, it has not changed since it was planned, it
    was due at once or, while it waits, lets the record settle. What is not so is written by accept.lua.

    Args:
        of_entry: its id.
        raw: the hash.
        organization_id: the usual organization.

    Raises:
        ValueError: the hash is not one of ours: a state, number, text or value in it cannot be read.
    """
    if b"state" not in raw:
        return None

    def text(name: str, usual: str = "") -> str:
        found = raw.get(name.encode())
        return usual if found is None else found.decode()

    def number(name: str) -> int:
        return int(text(name) or 0)

    def moment(name: str) -> int | None:
        return int(text(name)) if text(name) else None

    state = State(text("state"))
    planned_ms = number("planned_ms")
    own_lead = text("object") if text("type", "lead") == "lead" and b"lead" not in raw else ""
    return Entry(
        id=of_entry,
        version=number("v"),
        organization_id=text("org", organization_id),
        object_type=text("type", "lead"),
        object_id=text("object"),
        lead_id=text("lead") or own_lead or None,
        field_id=text("field"),
        field_name=text("name"),
        rule=text("rule"),
        mode=text("mode", "fill"),
        queue=text("queue", USUAL_QUEUE),
        event_id=text("event"),
        action=text("action", "created"),
        state=state,
        reason=text("reason", SETTLES if state is State.WAITING else ""),
        job_id=text("job"),
        fence=number("fence"),
        holder=text("holder"),
        attempts=number("attempts"),
        calls=number("calls"),
        failures=number("failures"),
        judged=text("judged") == "1",
        ambiguous=text("ambiguous") == "1",
        blocked=text("blocked") == "1",
        value_before=text("before") or None,
        planned_ms=planned_ms,
        due_ms=moment("due_ms") or (None if state.final else planned_ms or None),
        changed_ms=number("changed_ms") or planned_ms,
        called_ms=moment("called_ms"),
        ended_ms=moment("ended_ms"),
        unreachable_ms=moment("unreachable_ms"),
        retried_ms=moment("retried_ms"),
        lost_ms=moment("lost_ms"),
        value=_value(raw.get(b"value")),
        confidence=text("confidence") or None,
        reasoning=text("reasoning") or None,
        trace=text("trace") or None,
    )


def _value(raw: bytes | None) -> Any:
    try:
        return msgspec.json.decode(raw) if raw else None
    except RecursionError:
        raise ValueError("the entry's value is nested too deep") from None
