"""What a rule is, once read: frozen values and the two decisions that need nothing but a rule.

Reading a rules file is `service.rules_file`; joining rules with Close's custom fields is `service.binding`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.condition import Condition


class ObjectType(StrEnum):
    """The Close objects whose fields can be enriched."""

    LEAD = "lead"
    CONTACT = "contact"


class Action(StrEnum):
    """The event actions a rule can be triggered by, in Close's words."""

    CREATED = "created"
    UPDATED = "updated"
    MERGED = "merged"


class Mode(StrEnum):
    """What becomes of the computed value."""

    FILL = "fill"
    """Saved only where the field is empty; a filled field is not even asked about."""
    OVERWRITE = "overwrite"
    """Saved over whatever the field holds."""
    PREVIEW = "preview"
    """Computed and recorded, never saved."""


class OnAmbiguous(StrEnum):
    """What to do when a call may have run and the field, read back, is still empty."""

    RETRY = "retry"
    HOLD = "hold"


class Priority(StrEnum):
    """Where a rule's enrichments stand in the queues."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class OnExhausted(StrEnum):
    """What becomes of an enrichment that no budget is left for."""

    WAIT = "wait"
    DROP = "drop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """One kind of event that makes a rule run.

    Attributes:
        action: the event's action.
        fields: for `updated`, the fields of which one must have changed, as the user wrote them: an
            attribute (`title`) or a custom field's name or id. Empty for the other actions.
    """

    action: Action
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential backoff with full jitter: the ceiling doubles from `first_seconds` up to `most_seconds`."""

    first_seconds: float = 2.0
    most_seconds: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """A guard against bulk imports: more than `most` planned within `within_seconds` are held."""

    most: int
    within_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A ceiling on credits; one credit is one call. None means no ceiling."""

    per_day: int | None = None
    per_month: int | None = None
    on_exhausted: OnExhausted = OnExhausted.WAIT
    burst: Burst | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One field to enrich, and when and how.

    Attributes:
        name: unique within the rules file; what people and `after` call the rule.
        object_type: the object whose field is filled.
        field: the custom field's name in Close, or its id, as the user wrote it.
        on: the events that trigger it.
        mode: what becomes of the value.
        settle_seconds: how long to wait before the record is looked at.
        timeout_seconds: how long one call may take.
        attempts: failed calls before giving up.
        backoff: pauses between failed calls.
        on_ambiguous: what to do when nobody knows whether a call ran.
        when: the condition on the record, or None for every record.
        priority: place in the queues.
        after: names of rules for the same object that must have ended first.
        sample: share of matching records to enrich, 0 to 1.
        enabled: a disabled rule is checked but never matches.
        budget: the rule's own ceiling.
        line: where the rule starts in its file, counted from 1; 0 when it came from no file.
    """

    name: str
    object_type: ObjectType
    field: str
    on: tuple[Trigger, ...] = (Trigger(action=Action.CREATED),)
    mode: Mode = Mode.FILL
    settle_seconds: float = 0.0
    timeout_seconds: float = 120.0
    attempts: int = 5
    backoff: Backoff = Backoff()
    on_ambiguous: OnAmbiguous = OnAmbiguous.RETRY
    when: Condition | None = None
    priority: Priority = Priority.NORMAL
    after: tuple[str, ...] = ()
    sample: float = 1.0
    enabled: bool = True
    budget: Budget | None = None
    line: int = 0


class Target(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """What all enrichments of a rule have in common.

    Attributes:
        rule: name of the rule.
        object_type: lead or contact.
        field_id: the custom field.
        field_name: its name in Close.
        mode: what becomes of the value.
        settle_seconds: how long to wait before the record is looked at.
        priority: place in the queues.
    """

    rule: str
    object_type: ObjectType
    field_id: str
    field_name: str
    mode: Mode
    settle_seconds: float
    priority: Priority


@dataclass(frozen=True, kw_only=True)
class RuleBook:
    """A whole rules file, valid in itself.

    Attributes:
        rules: in the file's order.
        budget: the organization's ceiling.
        digest: names this version of the file in logs and records.
    """

    rules: tuple[Rule, ...] = ()
    budget: Budget | None = None
    digest: str = ""

    @property
    def enabled(self) -> tuple[Rule, ...]:
        """The rules that can match."""
        return tuple(rule for rule in self.rules if rule.enabled)

    def named(self, name: str) -> Rule | None:
        """The rule called `name`, or None."""
        return self._by_name.get(name)

    @cached_property
    def _by_name(self) -> Mapping[str, Rule]:
        return {rule.name: rule for rule in reversed(self.rules)}


def in_sample(*, rule_name: str, object_id: str, share: float) -> bool:
    """Whether a record belongs to a rule's sample: always the same answer for the same record and rule.

    Args:
        rule_name: the sampling rule; two rules with the same share pick different records.
        object_id: Close's id of the lead or contact.
        share: 0 to 1.
    """
    if share >= 1:
        return True
    digest = hashlib.blake2b(f"{rule_name}\0{object_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64
