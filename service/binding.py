"""Rules joined with an organization's custom fields: what runs, on which field, and what cannot run. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from service.condition import ATTRIBUTES
from service.problem import nearest_names, shown
from service.rules import Action
from service.schema import ENRICHABLE_TYPES, AmbiguousField, CustomField, UnknownField

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from service.event import Event
    from service.rules import ObjectType, Rule, RuleBook, Trigger
    from service.schema import Schema

_CUSTOM = "custom."
SCHEMA_NOT_LOADED = "schema not loaded"
"""The problem of a rule whose object's custom fields are not known yet: it may still bind later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundRule:
    """A rule that can run.

    Attributes:
        rule: as written.
        field_id: the custom field it fills.
        field_name: that field's name in Close.
        triggers: its events, with the fields of `updated` as `changed_fields` names them: an attribute as it
            is, a custom field as `custom.<id>`.
    """

    rule: Rule
    field_id: str
    field_name: str
    triggers: tuple[Trigger, ...]

    def triggered_by(self, event: Event) -> bool:
        """Whether the event is one of the rule's; the condition is not judged here."""
        return event.object_type == self.rule.object_type and any(
            event.action == trigger.action
            and (
                trigger.action is not Action.UPDATED
                or not set(trigger.fields).isdisjoint(event.changed_fields)
            )
            for trigger in self.triggers
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UnboundRule:
    """An enabled rule that cannot run, and why."""

    rule: Rule
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bindings:
    """All enabled rules of a rules file, joined with Close's schema.

    Attributes:
        bound: the rules that run, in the file's order.
        unbound: the rules that do not, in the file's order.
        warnings: sentences about what will run but should be looked at.
    """

    bound: tuple[BoundRule, ...] = ()
    unbound: tuple[UnboundRule, ...] = ()
    warnings: tuple[str, ...] = ()
    _by_event: dict[tuple[str, str], tuple[BoundRule, ...]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        for bound in self.bound:
            for action in {trigger.action for trigger in bound.triggers}:
                key = (bound.rule.object_type.value, action.value)
                self._by_event[key] = (*self._by_event.get(key, ()), bound)

    def for_event(self, event: Event) -> tuple[BoundRule, ...]:
        """The bound rules that the event triggers, in the file's order."""
        candidates = self._by_event.get((event.object_type, event.action), ())
        return tuple(bound for bound in candidates if bound.triggered_by(event))


def bind(rulebook: RuleBook, *, schemas: Mapping[ObjectType, Schema]) -> Bindings:
    """Join every rule with the custom field it names.

    A disabled rule is checked as well; what would keep it from running is a warning.

    Args:
        rulebook: the rules.
        schemas: the custom fields by object type; one that is not loaded yet leaves its rules unbound.
    """
    bound: list[BoundRule] = []
    unbound: list[UnboundRule] = []
    warnings: list[str] = []
    for rule in rulebook.rules:
        result = _bind_rule(rule, schemas.get(rule.object_type))
        if not rule.enabled:
            if isinstance(result, UnboundRule) and result.problem != SCHEMA_NOT_LOADED:
                warnings.append(f"rule {shown(rule.name)} is disabled and could not run: {result.problem}")
        elif isinstance(result, UnboundRule):
            unbound.append(result)
        else:
            bound.append(result)
            warnings += _type_warnings(result, schemas[rule.object_type])
    warnings += _double_warnings(bound)
    return Bindings(bound=tuple(bound), unbound=tuple(unbound), warnings=tuple(warnings))


def _bind_rule(rule: Rule, schema: Schema | None) -> BoundRule | UnboundRule:
    if schema is None:
        return UnboundRule(rule=rule, problem=SCHEMA_NOT_LOADED)
    target = _field(schema, rule.field)
    if not isinstance(target, CustomField):
        return UnboundRule(rule=rule, problem=_lookup_problem(rule, target))
    triggers = _bind_triggers(rule, schema, target)
    if isinstance(triggers, str):
        return UnboundRule(rule=rule, problem=triggers)
    problem = _condition_problem(rule, schema)
    if problem is not None:
        return UnboundRule(rule=rule, problem=problem)
    return BoundRule(rule=rule, field_id=target.id, field_name=target.name, triggers=triggers)


def _bind_triggers(rule: Rule, schema: Schema, target: CustomField) -> tuple[Trigger, ...] | str:
    """The rule's events with resolved fields, or what is wrong with the first that cannot be resolved."""
    triggers: list[Trigger] = []
    for trigger in rule.on:
        names: list[str] = []
        for name in trigger.fields:
            changed = _changed_field(schema, name)
            if not isinstance(changed, str):
                return f"updated({name}): {_lookup_problem(rule, changed)}"
            if changed == _CUSTOM + target.id:
                return f"updated({name}): the rule fills that field, so it would trigger itself"
            names.append(changed)
        triggers.append(replace(trigger, fields=tuple(names)))
    return tuple(triggers)


def _field(schema: Schema, name: str) -> CustomField | UnknownField | AmbiguousField:
    """The field that a rule names, also as `custom.<id>`, which is how Close writes it."""
    found = schema.lookup(name)
    if isinstance(found, UnknownField) and name.startswith(_CUSTOM):
        by_id = schema.lookup(name.removeprefix(_CUSTOM))
        return found if isinstance(by_id, UnknownField) else by_id
    return found


def _changed_field(schema: Schema, name: str) -> str | UnknownField | AmbiguousField:
    """How `changed_fields` names an attribute or custom field."""
    attributes = ATTRIBUTES[schema.object_type]
    if name in attributes:
        return name
    found = _field(schema, name)
    if isinstance(found, CustomField):
        return _CUSTOM + found.id
    if isinstance(found, UnknownField):
        return replace(
            found, nearest=nearest_names(name, [*attributes, *(known.name for known in schema.fields)])
        )
    return found


def _condition_problem(rule: Rule, schema: Schema) -> str | None:
    """The first custom field in the condition that there is not; the condition would be judged without it."""
    for name in rule.when.custom_fields if rule.when is not None else ():
        found = schema.lookup(name)
        if isinstance(found, CustomField) and name not in {found.id, found.name}:
            return (
                f"when: {shown(name)} is written {shown(found.name)} in Close, and conditions take it exactly"
            )
        if not isinstance(found, CustomField):
            return f"when: {_lookup_problem(rule, found)}"
    return None


def _lookup_problem(rule: Rule, found: UnknownField | AmbiguousField) -> str:
    if isinstance(found, AmbiguousField):
        return f"{shown(found.name)} names several fields; say which by its id: {', '.join(found.ids)}"
    hint = f"; did you mean {_listed(found.nearest)}?" if found.nearest else ""
    return f"{shown(found.name)} is no custom field of {rule.object_type}s in Close{hint}"


def _listed(names: Iterable[str]) -> str:
    return " or ".join(f"'{name}'" for name in names)


def _type_warnings(bound: BoundRule, schema: Schema) -> list[str]:
    found = schema.lookup(bound.field_id)
    if not isinstance(found, CustomField) or found.type in ENRICHABLE_TYPES:
        return []
    types = ", ".join(sorted(ENRICHABLE_TYPES))
    what = f"enrichment does not name the type {shown(found.type)} of {shown(found.name)}; it names {types}"
    return [f"rule {shown(bound.rule.name)}: {what}"]


def _double_warnings(bound: Iterable[BoundRule]) -> list[str]:
    first: dict[tuple[ObjectType, str], BoundRule] = {}
    warnings: list[str] = []
    for rule in bound:
        other = first.setdefault((rule.rule.object_type, rule.field_id), rule)
        if other is not rule:
            names = f"{shown(other.rule.name)} and {shown(rule.rule.name)}"
            warnings.append(f"rules {names} fill the same field, {shown(rule.field_name)} ({rule.field_id})")
    return warnings
