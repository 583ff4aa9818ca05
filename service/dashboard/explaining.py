"""An explanation of a pasted event, as the Rules page and the JSON API give it.

It shows the values that conditions saw of the event, to whoever has pasted it; nothing is kept or logged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from service.event import Unparseable, parse_any_event
from service.explain import explain
from service.knowledge import Knowledge
from service.offline_fields import offline_schemas
from service.recall import recall

if TYPE_CHECKING:
    from service.dashboard.desk import Desk
    from service.explanation import Explanation


class SeenField(msgspec.Struct, frozen=True, kw_only=True):
    """A field that a condition names: whether it has a value, that value, and whether the field is known."""

    name: str
    present: bool
    known: bool
    value: Any


class ConditionPart(msgspec.Struct, frozen=True, kw_only=True):
    """One of the parts that `&&` joins; `met` is null where that cannot be told."""

    source: str
    met: bool | None
    reason: str


class ConditionSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A condition judged on the record; `met` is null where that cannot be told."""

    source: str
    met: bool | None
    reason: str
    values: list[SeenField]
    parts: list[ConditionPart]


class CreditsLeft(msgspec.Struct, frozen=True, kw_only=True):
    """A budget that a call falls under; `spent` is null where nobody knows."""

    words: str
    limit: int
    spent: int | None


class LedgerHas(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger has about the field: its state, who planned it, since when, and what it cost."""

    state: str
    rule: str
    at_ms: int
    credits: int


class RuleExplained(msgspec.Struct, frozen=True, kw_only=True):
    """One rule and the event.

    Attributes:
        rule: its name.
        object_type: what it is for.
        field: the custom field as the rule names it.
        field_id: Close's id of it; null where it is not known.
        field_name: its name in Close; null where it is not known.
        outcome: what becomes of it; `call` where Close would be asked.
        reason: why, in words.
        planned: whether `web` plans it when the event arrives.
        judged: when the condition is judged: `accept` or `preflight`; null where it is not.
        condition: what it saw; null where there is none, or it is not asked.
        mode: what becomes of a value.
        settle_seconds: how long the record is left alone first.
        priority: the place in the queues.
        after: rules that come first.
        sample: the share of records that it wants.
        in_sample: whether the record is in that share.
        budgets: what a call falls under.
        recorded: what the ledger has about the field.
        credits_at_most: what it costs, by what is known here.
    """

    rule: str
    object_type: str
    field: str
    field_id: str | None
    field_name: str | None
    outcome: str
    reason: str
    planned: bool
    judged: str | None
    condition: ConditionSeen | None
    mode: str
    settle_seconds: float
    priority: str
    after: list[str]
    sample: float
    in_sample: bool
    budgets: list[CreditsLeft]
    recorded: LedgerHas | None
    credits_at_most: int


class EventExplained(msgspec.Struct, frozen=True, kw_only=True):
    """What an event leads to, and why.

    Attributes:
        event_id: of the event; null where it has none.
        type: such as `lead.created`.
        object_id: the record.
        lead_id: the lead it belongs to; null where the event does not say.
        ignored: why no rule is asked; null where they are.
        limits: what could not be told.
        rules: every rule of the file, in its order.
        calls: rules for which Close would be asked.
        credits_at_most: what all of it costs, by what is known here.
    """

    event_id: str | None
    type: str
    object_id: str
    lead_id: str | None
    ignored: str | None
    limits: list[str]
    rules: list[RuleExplained]
    calls: int
    credits_at_most: int


async def explain_event(desk: Desk, body: bytes) -> EventExplained | str:
    """The explanation of an event, or why the text is none. Nothing is planned.

    Args:
        desk: with rules and ledger.
        body: a delivery's body, or an event by itself.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    event = parse_any_event(body)
    if isinstance(event, Unparseable):
        return event.reason
    knowledge, known_ids = desk.knowledge(), None
    if not knowledge.schemas:
        schemas, known_ids = offline_schemas(knowledge.rulebook, event)
        knowledge = Knowledge.of(knowledge.rulebook, schemas)
    ceilings = desk.windows(desk.now_ms())
    windows = {
        rule.name: [one for one in ceilings if one.scope in {"all", f"rule:{rule.name}"}]
        for rule in knowledge.rulebook.rules
    }
    memory = await recall(desk.ledger, event, windows=windows)
    return _told(
        explain(
            event,
            knowledge=knowledge,
            own_api_key_id=desk.own_api_key_id,
            known_ids=known_ids,
            entries=memory.entries,
            planned_before=memory.planned_before,
            budgets=memory.budgets,
        )
    )


def _told(explanation: Explanation) -> EventExplained:
    # through JSON, as record values may be anything at all
    return msgspec.json.decode(msgspec.json.encode(explanation.describe()), type=EventExplained)
