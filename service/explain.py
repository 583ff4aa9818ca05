"""Why an event leads to what it leads to, rule by rule. Pure, for the command line and the dashboard alike.

It decides nothing by itself: `service.verdicts` does, by asking what the receiver and the workers ask. Here
the reasons are laid open: what each condition saw, what the ledger and the budgets say, and what it costs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from service.condition_trace import trace_condition
from service.explanation import Explanation, Recorded, RuleExplanation
from service.offline_fields import named_fields
from service.rules import Action, in_sample
from service.verdicts import Moment, Outcome, judge_rules

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.condition_trace import ConditionTrace
    from service.enrichment import Entry
    from service.event import Event
    from service.explanation import BudgetLeft
    from service.knowledge import Knowledge
    from service.rules import Rule
    from service.verdicts import Sight, Verdict, Verdicts

_ASKED = frozenset(Outcome) - {Outcome.OTHER_EVENT, Outcome.CANNOT_RUN, Outcome.DISABLED}
_BY_CONDITION = frozenset({Outcome.CALL, Outcome.FILLED, Outcome.UNMET, Outcome.NOT_JUDGED})
"""Outcomes that rest on the condition, where there is one."""

_NO_LIMITS: Mapping[str, tuple[BudgetLeft, ...]] = {}
_NO_ENTRIES: Mapping[str, Entry] = {}


def explain(
    event: Event,
    *,
    knowledge: Knowledge,
    own_api_key_id: str | None,
    record: Mapping[str, Any] | None = None,
    known_ids: frozenset[str] | None = None,
    entries: Mapping[str, Entry] = _NO_ENTRIES,
    planned_before: bool = False,
    budgets: Mapping[str, tuple[BudgetLeft, ...]] = _NO_LIMITS,
) -> Explanation:
    """Explain an event.

    Args:
        event: what happened.
        knowledge: rules and custom fields.
        own_api_key_id: our API key's id, whose updates are ours; None when it is not known.
        record: the lead or contact as Close gives it now; without it the event's own data is taken for it.
        known_ids: the fields that can be told apart where `knowledge` has the schemas of
            `service.offline_fields`; None where it has Close's.
        entries: the record's ledger entries by field id.
        planned_before: this event was planned already, in the version it is in.
        budgets: what is left, by the rule's name.
    """
    verdicts = judge_rules(event, knowledge=knowledge, own_api_key_id=own_api_key_id, record=record)
    asked = _Asked(
        event=event,
        sight=verdicts.sight,
        known_ids=known_ids,
        entries=entries,
        planned_before=planned_before,
        budgets=budgets,
    )
    rules = tuple(asked.about(verdict) for verdict in verdicts.rules)
    return Explanation(
        event_id=event.id or None,
        type=f"{event.object_type}.{event.action}",
        object_id=event.object_id,
        lead_id=event.lead_id,
        ignored=None if verdicts.ignored is None else verdicts.ignored.text,
        limits=tuple(_limits(verdicts, rules, record=record, known_ids=known_ids)),
        rules=rules,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    event: Event
    sight: Sight
    known_ids: frozenset[str] | None
    entries: Mapping[str, Entry]
    planned_before: bool
    budgets: Mapping[str, tuple[BudgetLeft, ...]]

    def about(self, verdict: Verdict) -> RuleExplanation:
        """One rule's verdict with all that it rests on."""
        rule = verdict.rule
        trace = self._trace(rule, verdict)
        verdict = self._by_ledger(self._without_names(verdict, trace))
        entry = self.entries.get(verdict.field_id or "")
        return RuleExplanation(
            rule=rule.name,
            object_type=rule.object_type,
            field=rule.field,
            field_id=verdict.field_id
            if self.known_ids is None or verdict.field_id in self.known_ids
            else None,
            field_name=verdict.field_name if self.known_ids is None else None,
            outcome=verdict.outcome,
            reason=verdict.reason,
            planned=verdict.enrichment is not None,
            judged=verdict.moment,
            condition=trace,
            mode=rule.mode,
            settle_seconds=rule.settle_seconds,
            priority=rule.priority,
            after=rule.after,
            sample=rule.sample,
            in_sample=in_sample(rule_name=rule.name, object_id=self.event.object_id, share=rule.sample),
            budgets=self.budgets.get(rule.name, ()),
            recorded=None if entry is None else _recorded(entry),
        )

    def _trace(self, rule: Rule, verdict: Verdict) -> ConditionTrace | None:
        if rule.when is None or verdict.moment is None:
            return None
        record, event = self.sight.at(verdict.moment)
        if record is None:
            return None
        return trace_condition(
            rule.when,
            record=record,
            event=event,
            organization=self.sight.organization,
            known_ids=self.known_ids,
        )

    def _without_names(self, verdict: Verdict, trace: ConditionTrace | None) -> Verdict:
        """The verdict where fields are known by their ids only: what rests on a name cannot be told."""
        if self.known_ids is None:
            return verdict
        rule = verdict.rule
        changed = named_fields(rule) - self.known_ids
        if verdict.outcome is Outcome.OTHER_EVENT and changed and self._updates(rule):
            names = ", ".join(map(repr, sorted(changed)))
            reason = f"it takes Close's custom fields to know whether {names} has changed"
            return replace(verdict, outcome=Outcome.NOT_JUDGED, reason=reason)
        if trace is not None and verdict.outcome in _BY_CONDITION and not trace.met:
            outcome = Outcome.NOT_JUDGED if trace.met is None else Outcome.UNMET
            # what is judged before the call is planned whatever the condition says
            planned = verdict.enrichment if verdict.moment is Moment.PREFLIGHT else None
            return replace(verdict, outcome=outcome, reason=trace.reason, enrichment=planned)
        return verdict

    def _updates(self, rule: Rule) -> bool:
        return self.event.object_type == rule.object_type and self.event.action == Action.UPDATED

    def _by_ledger(self, verdict: Verdict) -> Verdict:
        """The verdict where the ledger has the field already: what accept.lua would answer."""
        entry = None if verdict.enrichment is None else self.entries.get(verdict.enrichment.target.field_id)
        if verdict.enrichment is None or entry is None:
            return verdict
        newer = verdict.enrichment.reopens and not self.planned_before
        if newer and (entry.state.final or entry.holder or entry.ambiguous):
            return verdict
        reason = "the ledger has the field already" if entry.state.final else "the field is under way already"
        return replace(verdict, outcome=Outcome.RECORDED, reason=reason)


def _recorded(entry: Entry) -> Recorded:
    return Recorded(state=entry.state, rule=entry.rule, at_ms=entry.changed_ms, credits=entry.calls)


def _limits(
    verdicts: Verdicts,
    rules: tuple[RuleExplanation, ...],
    *,
    record: Mapping[str, Any] | None,
    known_ids: frozenset[str] | None,
) -> list[str]:
    asked = [one for one in rules if one.outcome in _ASKED]
    limits = []
    if known_ids is not None:
        names = sorted({one.field for one in asked if one.field_id is None})
        told = f": {', '.join(map(repr, names))}" if names else ""
        limits.append(
            "Close's custom fields are not known, so a field named by its name cannot be told apart, nor "
            f"whether it is filled{told}."
        )
    if verdicts.sight.fresh is None and asked:
        limits.append("The event carries no data: conditions, and which fields are filled, cannot be told.")
    elif record is None and any(one.judged is Moment.PREFLIGHT for one in asked):
        limits.append(
            "A rule that settles is judged on a fresh read before the call; here on the event's own data."
        )
    return limits
