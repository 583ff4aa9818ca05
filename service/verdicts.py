"""What each rule makes of an event, and whether Close would be asked in the end. Pure.

`service.planning` decides when an event arrives, `workers.preflight` before the call, on a fresh read. This
looks at both at once, on the data at hand, for `rules explain` and `rules plan`: what is planned here is what
the receiver plans, because it asks the same function.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from service.evidence import event_view, record_view
from service.planning import Ignored, IgnoredReason, Plan
from service.problem import shown
from service.rules import Action, Mode, ObjectType, in_sample

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.binding import BoundRule
    from service.event import Event
    from service.knowledge import Knowledge
    from service.planning import PlannedEnrichment
    from service.rules import Rule

_LATER_EVENT_KEYS = ("id", "action", "object_type", "object_id", "lead_id")
"""What a worker still knows about an event when it judges a condition (see `workers.look`)."""


class Outcome(StrEnum):
    """What becomes of a rule and a record."""

    CALL = "call"
    """Close would be asked."""
    FILLED = "filled"
    """The field has a value already, and the rule only fills."""
    UNMET = "unmet"
    """The record does not meet the rule's condition."""
    NOT_SAMPLED = "not_sampled"
    """The record is not in the rule's sample."""
    TAKEN = "taken"
    """An earlier rule of the file has the field."""
    OTHER_EVENT = "other_event"
    """The rule does not listen to such an event."""
    CANNOT_RUN = "cannot_run"
    """The rule's fields are not what Close has."""
    DISABLED = "disabled"
    NOT_JUDGED = "not_judged"
    """What it would take to decide is not known."""
    RECORDED = "recorded"
    """The ledger has the field already, and this event does not start it again."""


class Moment(StrEnum):
    """When a condition is judged."""

    ACCEPT = "accept"
    """When the event arrives, on the event's own data."""
    PREFLIGHT = "preflight"
    """Before the call, on a fresh read of the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What conditions see; records are views as `service.evidence.record_view` makes them.

    Attributes:
        carried: the record as the event carries it, or None.
        fresh: the record as it is to be taken for a fresh read, or None.
        event: the event as conditions see it when it arrives.
        later: what is left of it before the call.
        organization: `{"id": …}`.
    """

    carried: Mapping[str, Any] | None = field(repr=False)
    fresh: Mapping[str, Any] | None = field(repr=False)
    event: Mapping[str, Any]
    later: Mapping[str, Any]
    organization: Mapping[str, Any]

    def moment(self, rule: Rule) -> Moment | None:
        """When a rule's condition is judged; None for a rule without one."""
        if rule.when is None:
            return None
        return Moment.ACCEPT if rule.settle_seconds == 0 and self.carried is not None else Moment.PREFLIGHT

    def at(self, moment: Moment) -> tuple[Mapping[str, Any] | None, Mapping[str, Any]]:
        """The record and the event as conditions see them at that moment."""
        return (self.carried, self.event) if moment is Moment.ACCEPT else (self.fresh, self.later)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One rule.

    Attributes:
        rule: as written.
        outcome: what becomes of it.
        reason: why, in words that hold no record's value.
        enrichment: what the receiver plans, or None.
        field_id, field_name: the custom field it fills; None where they are not known.
        moment: when its condition is judged; None where it has none, or is not asked.
    """

    rule: Rule
    outcome: Outcome
    reason: str
    enrichment: PlannedEnrichment | None = None
    field_id: str | None = None
    field_name: str | None = None
    moment: Moment | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """All rules of the file, in its order; `ignored` is why none of them is asked, or None."""

    ignored: Ignored | None
    sight: Sight
    rules: tuple[Verdict, ...]


def judge_rules(
    event: Event,
    *,
    knowledge: Knowledge,
    own_api_key_id: str | None,
    record: Mapping[str, Any] | None = None,
) -> Verdicts:
    """What every rule makes of an event.

    Args:
        event: what happened.
        knowledge: rules and custom fields.
        own_api_key_id: our API key's id, whose updates are ours; None when it is not known.
        record: the lead or contact as Close gives it now; without it the event's own data is taken for it.
    """
    planned = knowledge.plan(event, own_api_key_id=own_api_key_id)
    sight = _sight(event, knowledge, record)
    asked = _Asked(event=event, knowledge=knowledge, planned=planned, sight=sight)
    return Verdicts(
        ignored=planned if isinstance(planned, Ignored) else None,
        sight=sight,
        rules=tuple(asked.about(rule) for rule in knowledge.rulebook.rules),
    )


def _sight(event: Event, knowledge: Knowledge, record: Mapping[str, Any] | None) -> Sight:
    known = [one for one in ObjectType if one == event.object_type]
    schema = knowledge.schema(known[0]) if known else None
    data = event.data() if known else {}
    carried = record_view(data, schema=schema) if data else None
    seen = event_view(event)
    return Sight(
        carried=carried,
        fresh=carried if record is None else record_view(record, schema=schema),
        event=seen,
        later={name: seen[name] for name in _LATER_EVENT_KEYS},
        organization={"id": event.organization_id},
    )


class _Asked:
    """One event, asked about rule by rule, in the file's order."""

    def __init__(self, *, event: Event, knowledge: Knowledge, planned: Plan | Ignored, sight: Sight) -> None:
        self._event = event
        self._sight = sight
        plan = Plan() if isinstance(planned, Ignored) else planned
        self._ignored = planned if isinstance(planned, Ignored) else None
        self._enrichments = {one.target.rule: one for one in plan.enrichments}
        self._skipped = {one.rule: one.reason for one in plan.skipped}
        self._bound = {one.rule.name: one for one in knowledge.bindings.bound}
        self._unbound = {one.rule.name: one.problem for one in knowledge.bindings.unbound}
        self._taken: set[str] = set()

    def about(self, rule: Rule) -> Verdict:
        """What becomes of a rule."""
        if not rule.enabled:
            return Verdict(rule=rule, outcome=Outcome.DISABLED, reason="the rule is disabled")
        bound = self._bound.get(rule.name)
        enrichment = self._enrichments.get(rule.name)
        if enrichment is not None:
            outcome, reason = self._before_the_call(rule, enrichment)
            self._taken.add(enrichment.target.field_id)
        elif rule.name in self._skipped:
            outcome, reason = self._refusal(rule, bound), self._skipped[rule.name]
        else:
            outcome, reason = self._silence(rule)
        asked = outcome not in {Outcome.OTHER_EVENT, Outcome.CANNOT_RUN}
        return Verdict(
            rule=rule,
            outcome=outcome,
            reason=reason,
            enrichment=enrichment,
            field_id=None if bound is None else bound.field_id,
            field_name=None if bound is None else bound.field_name,
            moment=self._sight.moment(rule) if asked else None,
        )

    def _refusal(self, rule: Rule, bound: BoundRule | None) -> Outcome:
        """Which of the reasons for not planning it was: they are looked at in this order."""
        if bound is None:
            return Outcome.CANNOT_RUN
        if bound.field_id in self._taken:
            return Outcome.TAKEN
        sampled = in_sample(rule_name=rule.name, object_id=self._event.object_id, share=rule.sample)
        return Outcome.UNMET if sampled else Outcome.NOT_SAMPLED

    def _silence(self, rule: Rule) -> tuple[Outcome, str]:
        """Why planning says nothing about a rule: the event is not one of the rule's."""
        kind = f"{self._event.object_type}.{self._event.action}"
        problem = self._unbound.get(rule.name)
        if self._event.object_type != rule.object_type:
            return Outcome.OTHER_EVENT, f"the rule is for {rule.object_type}s, and this is {kind}"
        if problem is not None:
            return Outcome.CANNOT_RUN, problem
        if self._ignored is not None and self._ignored.reason is not IgnoredReason.NO_RULE:
            return Outcome.OTHER_EVENT, self._ignored.text
        actions = [trigger.action for trigger in rule.on]
        if self._event.action not in actions:
            return Outcome.OTHER_EVENT, f"the rule listens to {', '.join(actions)}, and this is {kind}"
        names = [name for one in rule.on if one.action is Action.UPDATED for name in one.fields]
        return Outcome.OTHER_EVENT, f"none of {', '.join(map(shown, names))} has changed"

    def _before_the_call(self, rule: Rule, enrichment: PlannedEnrichment) -> tuple[Outcome, str]:
        """What a worker would decide about what is planned, on the data at hand."""
        record = self._sight.fresh
        if rule.when is not None and not enrichment.judged:
            if record is None:
                return Outcome.NOT_JUDGED, "the event carries no data to judge the condition on"
            verdict = rule.when.judge(
                record=record, event=self._sight.later, organization=self._sight.organization
            )
            if not verdict.met:
                return Outcome.UNMET, verdict.reason
        if rule.mode is Mode.FILL and record is not None and f"custom.{enrichment.target.field_id}" in record:
            return Outcome.FILLED, "the field already has a value"
        return Outcome.CALL, "every record is wanted" if rule.when is None else "the condition is met"
