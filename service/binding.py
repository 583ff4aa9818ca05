"""Rules joined with an organization's custom fields: what runs, on which field, and what cannot run. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from service import cel_text
from service.condition import ConditionProblem, custom_fields_read
from service.condition_check import check_condition
from service.problem import Level, nearest_names, shown
from service.record_names import ATTRIBUTES
from service.rules import Action, Target
from service.rules_check import shadows
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
        target: what its enrichments have in common; made once, as each event asks for it.
    """

    rule: Rule
    field_id: str
    field_name: str
    triggers: tuple[Trigger, ...]
    target: Target = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        target = Target(
            rule=self.rule.name,
            object_type=self.rule.object_type,
            field_id=self.field_id,
            field_name=self.field_name,
            mode=self.rule.mode,
            settle_seconds=self.rule.settle_seconds,
            priority=self.rule.priority,
        )
        object.__setattr__(self, "target", target)

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
    _by_field: dict[tuple[str, str], set[int]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )
    _unbound_by_event: dict[tuple[str, str], tuple[UnboundRule, ...]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        for place, bound in enumerate(self.bound):
            object_type = bound.rule.object_type.value
            for key in _events(bound.rule, bound.triggers):
                self._by_event[key] = (*self._by_event.get(key, ()), bound)
            for trigger in bound.triggers:
                for name in trigger.fields if trigger.action is Action.UPDATED else ():
                    self._by_field.setdefault((object_type, name), set()).add(place)
        for unbound in self.unbound:
            for key in _events(unbound.rule, unbound.rule.on):
                self._unbound_by_event[key] = (*self._unbound_by_event.get(key, ()), unbound)

    def for_event(self, event: Event) -> tuple[BoundRule, ...]:
        """The bound rules that the event triggers, in the file's order."""
        if event.action != Action.UPDATED:
            return self._by_event.get((event.object_type, event.action), ())
        places = (self._by_field.get((event.object_type, name), ()) for name in event.changed_fields)
        return tuple(self.bound[place] for place in sorted(set().union(*places)))

    def unbound_for(self, event: Event) -> tuple[UnboundRule, ...]:
        """The unbound rules for this kind of event, in the file's order, whichever fields have changed."""
        return self._unbound_by_event.get((event.object_type, event.action), ())


def _events(rule: Rule, triggers: Iterable[Trigger]) -> set[tuple[str, str]]:
    """The kinds of events that triggers name, as events name them."""
    return {(rule.object_type.value, trigger.action.value) for trigger in triggers}


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfit:
    """What is wrong with a rule, given the organization's custom fields.

    Attributes:
        part: the rule's key it is about: `field`, `on` or `when`; empty for the rule as a whole.
        message: what is wrong, without the part.
        nearest: the names that were probably meant, the likeliest first.
        name: for `on`, the field in `updated(…)`.
        condition: for `when`, the place within the condition.
        level: an error keeps the rule from running.
    """

    part: str
    message: str
    nearest: tuple[str, ...] = ()
    name: str = ""
    condition: ConditionProblem | None = None
    level: Level = Level.ERROR

    @property
    def sentence(self) -> str:
        """The whole of it in a line, for a log or an answer."""
        part = {"on": f"updated({self.name}): ", "when": "when: "}.get(self.part, "")
        hint = f"; did you mean {_listed(self.nearest)}?" if self.nearest else ""
        return f"{part}{self.message}{hint}"


def bind(rulebook: RuleBook, *, schemas: Mapping[ObjectType, Schema]) -> Bindings:
    """Join every rule with the custom field it names.

    A disabled rule is checked as well; what would keep it from running is a warning.

    Args:
        rulebook: the rules.
        schemas: the custom fields by object type; one that is not loaded yet leaves its rules unbound.
    """
    fits, misfits = examine(dict(enumerate(rulebook.rules)), schemas=schemas)
    unbound: list[UnboundRule] = []
    warnings: list[str] = []
    for index, rule in enumerate(rulebook.rules):
        found = misfits.get(index, [])
        first = next((one.sentence for one in found if one.level is Level.ERROR), None)
        if rule.enabled and rule.object_type not in schemas:
            unbound.append(UnboundRule(rule=rule, problem=SCHEMA_NOT_LOADED))
        elif rule.enabled and first is not None:
            unbound.append(UnboundRule(rule=rule, problem=first))
        elif rule.enabled:
            warnings += (f"rule {shown(rule.name)}: {one.sentence}" for one in found)
        elif first is not None:
            warnings.append(f"rule {shown(rule.name)} is disabled and could not run: {first}")
    enabled = tuple(bound for bound in fits.values() if bound.rule.enabled)
    return Bindings(bound=enabled, unbound=tuple(unbound), warnings=tuple(warnings))


def examine(
    rules: Mapping[int, Rule], *, schemas: Mapping[ObjectType, Schema]
) -> tuple[dict[int, BoundRule], dict[int, list[Misfit]]]:
    """The rules that fit the organization's custom fields, and all that does not fit, by the rules' indexes.

    Args:
        rules: by their index in the file, in its order; enabled or not.
        schemas: the custom fields by object type; nothing is said about the rules of one that is missing.
    """
    fits: dict[int, BoundRule] = {}
    misfits: dict[int, list[Misfit]] = {}
    for index, rule in rules.items():
        schema = schemas.get(rule.object_type)
        if schema is None:
            continue
        bound, misfits[index] = _bind_rule(rule, schema)
        if bound is not None:
            fits[index] = bound
    resolved = {
        index: replace(bound.rule, field=bound.field_id, on=bound.triggers) for index, bound in fits.items()
    }
    for shadow in shadows(resolved):
        misfits[shadow.index].append(
            Misfit(part="", message=f"never runs: {shadow.why}", level=Level.WARNING)
        )
    return fits, misfits


def _bind_rule(rule: Rule, schema: Schema) -> tuple[BoundRule | None, list[Misfit]]:
    found: list[Misfit] = []
    target = _field(schema, rule.field)
    if not isinstance(target, CustomField):
        found.append(_not_found(rule, target, part="field"))
    elif target.type not in ENRICHABLE_TYPES:
        types = ", ".join(sorted(ENRICHABLE_TYPES))
        what = f"{shown(target.name)} has the type {shown(target.type)}; enrichment is known to fill {types}"
        found.append(Misfit(part="field", message=what, level=Level.WARNING))
    triggers = _bind_triggers(rule, schema, target, found)
    found += _condition_misfits(rule, schema)
    if not isinstance(target, CustomField) or any(one.level is Level.ERROR for one in found):
        return None, found
    return BoundRule(rule=rule, field_id=target.id, field_name=target.name, triggers=triggers), found


def _bind_triggers(
    rule: Rule, schema: Schema, target: CustomField | UnknownField | AmbiguousField, found: list[Misfit]
) -> tuple[Trigger, ...]:
    """The rule's events with resolved fields; what cannot be resolved is added to `found`."""
    triggers: list[Trigger] = []
    for trigger in rule.on:
        names: list[str] = []
        for name in trigger.fields:
            changed = _changed_field(schema, name)
            if not isinstance(changed, str):
                found.append(_not_found(rule, changed, part="on", name=name))
            elif isinstance(target, CustomField) and changed == _CUSTOM + target.id:
                message = "the rule fills that field, so it would trigger itself"
                found.append(Misfit(part="on", message=message, name=name))
            else:
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


def _condition_misfits(rule: Rule, schema: Schema) -> list[Misfit]:
    """What the condition asks of custom fields that they cannot answer."""
    if rule.when is None:
        return []
    found: list[Misfit] = []
    source, kind = rule.when.source, rule.object_type
    for name, start in custom_fields_read(source, object_type=kind):
        field = schema.lookup(name)
        if isinstance(field, CustomField) and name in {field.id, field.name}:
            continue
        if isinstance(field, CustomField):
            message = f"{shown(name)} is written {shown(field.name)} in Close, and conditions take it exactly"
            misfit = Misfit(part="when", message=message)
        else:
            misfit = _not_found(rule, field, part="when")
        line, column = cel_text.position(source, start)
        place = ConditionProblem(line=line, column=column, message=misfit.message)
        found.append(replace(misfit, condition=place))
    actions = tuple(dict.fromkeys(trigger.action for trigger in rule.on))
    known = check_condition(source, object_type=kind, actions=actions)
    for problem in check_condition(source, object_type=kind, actions=actions, schema=schema):
        if problem not in known:
            near = () if problem.suggestion is None else (problem.suggestion,)
            message = f"the condition {problem.message}"
            found.append(
                Misfit(part="when", message=message, nearest=near, condition=problem, level=problem.level)
            )
    return found


def _not_found(rule: Rule, found: UnknownField | AmbiguousField, *, part: str, name: str = "") -> Misfit:
    if isinstance(found, AmbiguousField):
        message = f"{shown(found.name)} names several fields; say which by its id: {', '.join(found.ids)}"
        return Misfit(part=part, message=message, name=name)
    message = f"{shown(found.name)} is no custom field of {rule.object_type}s in Close"
    return Misfit(part=part, message=message, nearest=found.nearest, name=name)


def _listed(names: Iterable[str]) -> str:
    return " or ".join(f"'{name}'" for name in names)
