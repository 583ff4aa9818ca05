"""Looking before asking: one read of the record, and after an unclear call what Close's event log says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.evidence import record_view
from service.jobs import BULK_QUEUE
from service.rules import ObjectType
from workers.conclusion import conclude
from workers.noting import note_reply
from workers.outcome import FieldUnreadable, read_field
from workers.preflight import before_call, log_would_tell, needs_reading
from workers.read_log import LogUnreadable, log_since, wrote_field
from workers.reply import Reply
from workers.reply_body import json_object
from workers.spread_word import spread_word
from workers.tools import READ_GROUP

if TYPE_CHECKING:
    from service.enrichment import Entry
    from service.ledger import Claim
    from service.rules import Rule
    from service.transitions import Postponement, Settlement
    from workers.outcome import Outcome
    from workers.preflight import Ask, FieldState
    from workers.reply import Failure
    from workers.tools import Tools


async def look(claim: Claim, rule: Rule, tools: Tools) -> Settlement | Postponement | Ask:
    """Read the record where that can spare the call, and decide."""
    entry = claim.entry
    object_type = ObjectType(entry.object_type)
    field_state: FieldState | None = None
    unmet = None
    logged = None
    if needs_reading(entry=entry, rule=rule):
        with tools.tracing.step("read record") as step:
            reply = await tools.records.read(
                object_type=object_type,
                object_id=entry.object_id,
                fields=tools.knowledge().fields_to_read(object_type, entry.field_id, when=rule.when),
                # a read from before the event tells nothing of what it changed, nor of what `after` brought
                most_age_seconds=0.0
                if entry.ambiguous or rule.after
                else max(0, tools.now_ms() - entry.planned_ms) / 1000,
                bulk=entry.queue == BULK_QUEUE,
            )
            note_reply(step, reply)
        reading = read_field(reply, field_id=entry.field_id)
        if isinstance(reading, FieldUnreadable):
            return await _not_read(entry, rule, reading.outcome, tools)
        field_state = reading
        if rule.when is not None and not entry.judged:
            unmet = _unmet(entry, rule, reply, tools)
        if tools.own_api_key_id is not None and log_would_tell(entry=entry, field=field_state):
            written = await _logged(entry, tools.own_api_key_id, tools)
            if isinstance(written, LogUnreadable):
                return await _not_read(entry, rule, written.outcome, tools)
            logged = written
    return before_call(
        entry=entry, rule=rule, field=field_state, unmet=unmet, logged=logged, now_ms=tools.now_ms()
    )


async def _not_read(entry: Entry, rule: Rule, outcome: Outcome, tools: Tools) -> Settlement | Postponement:
    conclusion = conclude(
        outcome,
        entry=entry,
        rule=rule,
        attempt=entry.attempts,
        called=False,
        draw=tools.random.random(),
        now_ms=tools.now_ms(),
    )
    await spread_word(conclusion, tools, group=READ_GROUP)
    return conclusion.then


async def _logged(entry: Entry, own_api_key_id: str, tools: Tools) -> bool | LogUnreadable:
    """Whether Close's event log has a write of ours to the field since the call."""
    with tools.tracing.step("read event log") as step:
        reply = await tools.records.read_log(
            object_type=ObjectType(entry.object_type),
            object_id=entry.object_id,
            since=log_since(entry.called_ms or 0),
        )
        note_reply(step, reply)
    return wrote_field(
        reply,
        field_id=entry.field_id,
        api_key_id=own_api_key_id,
        since_ms=entry.called_ms or 0,
        now_ms=tools.now_ms(),
    )


def _unmet(entry: Entry, rule: Rule, reply: Reply | Failure, tools: Tools) -> str | None:
    """Why the rule's condition does not hold on the record, or None where it does."""
    record = json_object(reply) if isinstance(reply, Reply) else ""
    if rule.when is None or isinstance(record, str):
        return None
    schema = tools.knowledge().schema(ObjectType(entry.object_type))
    verdict = rule.when.judge(
        record=record_view(record, schema=schema),
        event={
            "id": entry.event_id,
            "action": entry.action,
            "object_type": entry.object_type,
            "object_id": entry.object_id,
            "lead_id": entry.lead_id,
        },
        organization={"id": entry.organization_id},
    )
    return None if verdict.met else verdict.reason
