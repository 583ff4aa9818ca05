"""The whole story of a lead or contact, or of one enrichment, as the Record page tells it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from service import keys
from service.dashboard.reading import value_words
from service.enrichment import STATE_MEANINGS, State, entry_of_job

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from service.dashboard.desk import Desk
    from service.enrichment import Entry

MOST_ENRICHMENTS = 200
"""Enrichments told of one record, which has one for each field at most."""

MOST_STEPS = 100
"""What a story keeps (see entry.lua)."""

_LEAD_ID = re.compile(r"lead_[A-Za-z0-9]+", re.ASCII)
_OBJECT_ID = re.compile(r"(?:lead|cont)_[A-Za-z0-9_]+", re.ASCII)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that has happened to an enrichment, or is to.

    Attributes:
        at_ms: when, Unix milliseconds.
        state: where it went; `due` for what is to come.
        words: why, and with what.
        after_ms: how long after the step before.
    """

    at_ms: int
    state: str
    words: str
    after_ms: int


class EnrichmentStory(msgspec.Struct, frozen=True, kw_only=True):
    """One enrichment with all that is remembered of it.

    Attributes:
        id: of the enrichment.
        object_id: the lead or contact.
        field: the field's name.
        field_id: Close's id of it.
        rule: the rule that planned it.
        mode: what becomes of a value: fill, overwrite or preview.
        state: where it stands.
        meaning: what that state means.
        reason: why it stands there; "" where the state says it all.
        cause: what planned it.
        value: as Close returned it.
        value_words: the same for people; "" for nothing.
        value_before: what an overwriting call found there, for people; "" for nothing.
        confidence: as Close returned it.
        reasoning: as Close returned it.
        attempts: calls that ended badly or well.
        credits: calls that Close may have charged for.
        steps: its story, oldest first, at most the newest 100 facts.
        dead_letter: a person can retry or drop it.
        held: the burst guard holds it until somebody releases it.
    """

    id: str
    object_id: str
    field: str
    field_id: str
    rule: str
    mode: str
    state: str
    meaning: str
    reason: str
    cause: str
    value: Any
    value_words: str
    value_before: str
    confidence: str | None
    reasoning: str | None
    attempts: int
    credits: int
    steps: list[Step]
    dead_letter: bool
    held: bool


class RecordStory(msgspec.Struct, frozen=True, kw_only=True):
    """A lead or contact, as far as it was enriched.

    Attributes:
        object_id: of the record.
        object_type: `lead` or `contact`.
        lead_id: the lead it belongs to; null where nobody knows.
        close_url: where people see it in Close; "" where nobody knows.
        credits: calls for it that Close may have charged for.
        enrichments: oldest first.
    """

    object_id: str
    object_type: str
    lead_id: str | None
    close_url: str
    credits: int
    enrichments: list[EnrichmentStory]


async def read_record(desk: Desk, wanted: str) -> RecordStory | None:
    """The story of a record, or of one enrichment or job by its id; None where nothing is known of it.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    ledger = desk.ledger
    entries = await ledger.entries_of(wanted) if _OBJECT_ID.fullmatch(wanted) else []
    if not entries:
        one = await ledger.entry(entry_of_job(wanted))
        entries = [] if one is None else [one]
    entries = entries[:MOST_ENRICHMENTS]
    if not entries:
        return None
    ids = [entry.id for entry in entries]
    async with desk.redis.pipeline(transaction=False) as pipeline:
        pipeline.zmscore(keys.ATTENTION, ids)
        pipeline.zmscore(keys.HELD, ids)
        for one_id in ids:
            pipeline.lrange(keys.story(one_id), -MOST_STEPS, -1)
        letters, held, *stories = await pipeline.execute()
    first = entries[0]
    return RecordStory(
        object_id=first.object_id,
        object_type=first.object_type,
        lead_id=first.lead_id,
        close_url=close_url(desk.close_app_url, first.lead_id),
        credits=sum(entry.calls for entry in entries),
        enrichments=[
            _told(entry, _facts(story), dead_letter=letter is not None, held=one_held is not None)
            for entry, story, letter, one_held in zip(entries, stories, letters, held, strict=True)
        ],
    )


def close_url(app_url: str, lead_id: str | None) -> str:
    """Where people see a lead in Close; "" for what is no lead's id."""
    if lead_id is None or not _LEAD_ID.fullmatch(lead_id):
        return ""
    return f"{app_url}/lead/{lead_id}/"


def steps_of(entry: Entry, facts: Sequence[Mapping[str, Any]]) -> list[Step]:
    """What has happened to an enrichment, from its planning to what is to come."""
    told = [(round(fact["at"]), str(fact["state"]), _words(fact)) for fact in facts]
    if not any(at_ms == entry.planned_ms and state == State.PLANNED for at_ms, state, _ in told):
        # of what happened in the same millisecond, nothing came after it that was not called since
        place = len(told) if not entry.state.final and entry.called_ms is None else 0
        told.insert(place, (entry.planned_ms, "planned", f"by rule {entry.rule} for {entry.cause}"))
    # a story that goes back to before the latest planning begins by itself
    told.sort(key=lambda one: one[0])
    if not entry.state.final and entry.due_ms is not None and entry.due_ms > told[-1][0]:
        told.append((entry.due_ms, "due", entry.reason))
    steps, before_ms = [], told[0][0]
    for at_ms, state, words in told:
        steps.append(Step(at_ms=at_ms, state=state, words=words, after_ms=max(0, at_ms - before_ms)))
        before_ms = at_ms
    return steps


def _words(fact: Mapping[str, Any]) -> str:
    words = [str(fact.get("reason", ""))]
    if "attempt" in fact:
        words.append(f"attempt {fact['attempt']:g}")
    if fact.get("delay_ms"):
        words.append(f"for {fact['delay_ms'] / 1000:.1f} s")
    if fact.get("ambiguous"):
        words.append("the call may have run, so the field is read back first")
    return ", ".join(word for word in words if word)


def _facts(lines: Sequence[bytes]) -> list[Mapping[str, Any]]:
    """The facts of a story, without what another release may have written."""
    found: list[Mapping[str, Any]] = []
    for line in lines:
        try:
            fact = msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        if isinstance(fact.get("at"), int | float) and "state" in fact:
            found.append(fact)
    return found


def _told(
    entry: Entry, facts: Sequence[Mapping[str, Any]], *, dead_letter: bool, held: bool
) -> EnrichmentStory:
    before = None if entry.value_before is None else msgspec.json.decode(entry.value_before)
    return EnrichmentStory(
        id=entry.id,
        object_id=entry.object_id,
        field=entry.field_name or entry.field_id,
        field_id=entry.field_id,
        rule=entry.rule,
        mode=entry.mode,
        state=str(entry.state),
        meaning=STATE_MEANINGS[entry.state],
        reason=entry.reason,
        cause=entry.cause,
        value=entry.value,
        value_words="" if entry.value is None else value_words(entry.value),
        value_before="" if before is None else value_words(before),
        confidence=entry.confidence,
        reasoning=entry.reasoning,
        attempts=entry.attempts,
        credits=entry.calls,
        steps=steps_of(entry, facts),
        dead_letter=dead_letter,
        held=held,
    )
