"""What an event leads to: the fields to enrich, the rules that did not want it, or why nothing. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from service.evidence import Evidence, event_view, record_view
from service.rules import Action, ObjectType, Rule, in_sample

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from service.binding import Bindings, BoundRule
    from service.event import Event
    from service.rules import Target
    from service.schema import Schema

_DELETED = "deleted"


class IgnoredReason(StrEnum):
    """Why an authentic event leads to nothing."""

    FOREIGN_ORGANIZATION = "foreign_organization"
    DELETED = "deleted"
    OWN_WRITE = "own_write"
    NO_RULE = "no_rule"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignored:
    """No rule was asked about the event; `text` is the reason for people."""

    reason: IgnoredReason
    text: str


class PlannedEnrichment(msgspec.Struct, frozen=True, kw_only=True):
    """One field to enrich.

    Attributes:
        target: the field, and what its rule says of it.
        object_id: the record.
        lead_id: the lead the record belongs to, or None.
        judged: the rule's condition is met, or it has none. If False, it is to be judged on a fresh read.
        reopens: a finished enrichment of this field may start again: the record has changed since. A
            `created` event happens once, so one that comes again is a repetition, whatever the mode.
    """

    target: Target
    object_id: str
    lead_id: str | None
    judged: bool
    reopens: bool


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """A rule for this kind of event that did not want this one; `reason` holds no record's value."""

    rule: str
    reason: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules make of an event: each of them is in one of the two, both in the file's order."""

    enrichments: tuple[PlannedEnrichment, ...] = ()
    skipped: tuple[Skipped, ...] = ()


def plan(
    event: Event,
    *,
    bindings: Bindings,
    organization_id: str,
    own_api_key_id: str | None,
    schemas: Mapping[ObjectType, Schema],
) -> Plan | Ignored:
    """Decide what an event leads to.

    A condition is judged here when its rule does not settle and the event carries the record; otherwise the
    worker judges it. Of two rules for one field the first in the file gets it, if it wants it.

    Args:
        event: what happened.
        bindings: the rules with their fields' ids.
        organization_id: the organization we enrich.
        own_api_key_id: our API key's id, whose updates are ours; None when it is not known.
        schemas: custom fields by object type; conditions cannot name the fields of one that is missing.
    """
    ignored = _ignored(event, organization_id=organization_id, own_api_key_id=own_api_key_id)
    if ignored is not None:
        return ignored
    bound = bindings.for_event(event)
    unbound = bindings.unbound_for(event)
    if not bound and not unbound:
        kind = f"no rule for {event.object_type}.{event.action}"
        text = f"{kind} with these changed fields" if event.action == Action.UPDATED else kind
        return Ignored(reason=IgnoredReason.NO_RULE, text=text)
    evidence = _evidence(event, bound, schemas)
    taken: dict[str, str] = {}
    enrichments: list[PlannedEnrichment] = []
    skipped: list[Skipped] = []
    for one in bound:
        reason = _refusal(one, event, evidence=evidence, taken=taken)
        if reason is None:
            taken[one.field_id] = one.rule.name
            enrichments.append(_planned(one, event, evidence=evidence))
        else:
            skipped.append(Skipped(rule=one.rule.name, reason=reason))
    skipped += (Skipped(rule=one.rule.name, reason=one.problem) for one in unbound)
    return Plan(enrichments=tuple(enrichments), skipped=tuple(skipped))


def _ignored(event: Event, *, organization_id: str, own_api_key_id: str | None) -> Ignored | None:
    """Why no rule needs to be asked, or None."""
    kind = f"{event.object_type}.{event.action}"
    if event.organization_id != organization_id:
        return Ignored(
            reason=IgnoredReason.FOREIGN_ORGANIZATION, text="the event belongs to another organization"
        )
    if event.action == _DELETED:
        return Ignored(
            reason=IgnoredReason.DELETED, text=f"no rule for {kind}: what is deleted has no fields to fill"
        )
    if event.action == Action.UPDATED and event.own_write(own_api_key_id):
        return Ignored(reason=IgnoredReason.OWN_WRITE, text="the update is our own write")
    return None


def _judged_here(rule: Rule) -> bool:
    return rule.when is not None and rule.settle_seconds == 0


def _evidence(
    event: Event, bound: Sequence[BoundRule], schemas: Mapping[ObjectType, Schema]
) -> Evidence | None:
    """What conditions are judged on; None when no condition needs it or the event carries no record."""
    conditions = [one.rule.when for one in bound if one.rule.when is not None and _judged_here(one.rule)]
    if not conditions:
        return None
    data = event.data()
    if not data:
        return None
    return Evidence(
        record=record_view(data, schema=schemas.get(ObjectType(event.object_type))),
        event=event_view(event),
        organization={"id": event.organization_id},
        conditions=conditions,
    )


def _refusal(
    one: BoundRule, event: Event, *, evidence: Evidence | None, taken: Mapping[str, str]
) -> str | None:
    """Why the rule does not enrich the record, or None when it does."""
    rule = one.rule
    if one.field_id in taken:
        return f"already planned by rule {taken[one.field_id]!r}"
    if not in_sample(rule_name=rule.name, object_id=event.object_id, share=rule.sample):
        return f"not in the sample of {rule.sample * 100:g}%"
    if rule.when is None or evidence is None or not _judged_here(rule):
        return None
    verdict = evidence.judge(rule.when)
    return None if verdict.met else verdict.reason


def _planned(one: BoundRule, event: Event, *, evidence: Evidence | None) -> PlannedEnrichment:
    rule = one.rule
    return PlannedEnrichment(
        target=one.target,
        object_id=event.object_id,
        lead_id=event.lead_id,
        judged=rule.when is None or (evidence is not None and _judged_here(rule)),
        reopens=event.action != Action.CREATED,
    )
