"""YAML text to a RuleBook, or every problem with line, path, value and the nearest right thing. Pure.

Nothing is raised, whatever the text. A value that does not fit is reported and then taken as absent, so that
what depends on the rest of its rule is checked as well and everything is reported at once.
"""

from __future__ import annotations

import copy
import hashlib
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from service.condition import Condition, ConditionProblem, compile_condition
from service.condition_check import check_condition
from service.durations import format_duration
from service.problem import Level, Problem, nearest, shown
from service.rules import (
    Action,
    Backoff,
    Budget,
    Burst,
    ObjectType,
    OnExhausted,
    Priority,
    Rule,
    RuleBook,
    Trigger,
)
from service.rules_check import check_rules
from service.rules_model import (
    BackoffKeys,
    BudgetKeys,
    BurstKeys,
    DefaultKeys,
    OwnBudgetKeys,
    RuleKeys,
    RulesFile,
)
from service.schema import folded
from service.stand_ins import leave_out, rule_stand_ins
from service.trigger_text import TriggerFault, read_triggers
from service.yaml_tree import read_tree, written_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

    from service.yaml_tree import Path, Tree

_Keys = TypeVar("_Keys", bound=BaseModel)
_DIGEST_LENGTH = 12
_OF_A_RULE = re.compile(r"rules\[(\d+)\]")
_DEEPEST_KEYS = 4
"""How often leaving out a key can leave the mapping around it unfit, and once more."""
_BUILT_IN = Rule(name="", object_type=ObjectType.LEAD, field="", settle_seconds=20.0)
"""What a rule does where neither it nor the file's `defaults` say otherwise."""
_MODELS: Mapping[str, type[BaseModel]] = {
    "backoff": BackoffKeys,
    "budget": BudgetKeys,
    "burst": BurstKeys,
    "defaults": DefaultKeys,
    "rules": RuleKeys,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedRules:
    """What a rules file says.

    Attributes:
        rulebook: the rules, or None where there are problems.
        problems: what keeps the file from being used, in the order of its lines.
        warnings: what should be looked at, in the order of the lines.
        readable: the rules that could be read, by their index in the file; also where there are problems, and
            then without what did not fit.
        tree: the file's values and where they stand.
    """

    rulebook: RuleBook | None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    readable: Mapping[int, Rule] = field(default_factory=dict, compare=False, repr=False)
    tree: Tree = field(compare=False, repr=False)


def load_rules(text: str | bytes, *, source: str) -> LoadedRules:
    """Read a rules file.

    Args:
        text: the file's content, decoded or as bytes.
        source: the file's name, for messages.
    """
    tree = read_tree(text, source=source)
    reading = _Reading(tree=tree)
    rules: dict[int, Rule] = {}
    budget: Budget | None = None
    if isinstance(tree.data, dict):
        rules, budget = reading.file(tree.data)
    elif tree.data is not None:
        reading.report((), "is not a mapping; it needs the keys version and rules")
    found = sorted([*tree.problems, *reading.problems], key=lambda problem: (problem.line, problem.column))
    problems = tuple(problem for problem in found if problem.level is Level.ERROR)
    warnings = tuple(problem for problem in found if problem.level is Level.WARNING)
    if problems:
        return LoadedRules(rulebook=None, problems=problems, warnings=warnings, readable=rules, tree=tree)
    encoded = text.encode() if isinstance(text, str) else text
    digest = hashlib.sha256(encoded).hexdigest()[:_DIGEST_LENGTH]
    return LoadedRules(
        rulebook=RuleBook(rules=tuple(rules.values()), budget=budget, digest=digest),
        warnings=warnings,
        readable=rules,
        tree=tree,
    )


@dataclass(slots=True, kw_only=True)
class _Reading:
    """One reading of a file, with the problems found on the way."""

    tree: Tree
    problems: list[Problem] = field(default_factory=list)

    def report(
        self, path: Path, message: str, *, suggestion: str | None = None, level: Level = Level.ERROR
    ) -> None:
        self.problems.append(self.tree.problem(path, message, suggestion=suggestion, level=level))

    def file(self, data: dict[str, Any]) -> tuple[dict[int, Rule], Budget | None]:
        """The rules that could be read, by their index, and the organization's budget."""
        items = data.get("rules")
        listed = items if isinstance(items, list) else []
        whole = {**data, "rules": []} if isinstance(items, list) else data
        top = self.keys(RulesFile, whole, (), stand_ins={"version": 1, "rules": []})
        if items == []:
            self.report(("rules",), "is empty: nothing will be enriched", level=Level.WARNING)
        template = _BUILT_IN
        if top is not None and top.defaults is not None:
            template = self.with_keys(_BUILT_IN, top.defaults, ("defaults",))
        rules: dict[int, Rule] = {}
        for index, item in enumerate(listed):
            keys = self.keys(RuleKeys, item, ("rules", index), stand_ins=rule_stand_ins(index, item))
            if keys is not None:
                rules[index] = self.rule(keys, template, ("rules", index))
        names = {
            index: item["name"]
            for index, item in enumerate(listed)
            if isinstance(item, dict) and isinstance(item.get("name"), str)
        }
        budget = None if top is None or top.budget is None else _whole_budget(top.budget)
        sound_budget = None if any(one.path.startswith("budget") for one in self.problems) else budget
        for finding in check_rules(rules, names=names, broken=self.broken(), budget=sound_budget):
            self.report(finding.path, finding.message, suggestion=finding.suggestion, level=finding.level)
        return rules, budget

    def broken(self) -> set[int]:
        """The indexes of rules that have problems."""
        found = [*self.tree.problems, *self.problems]
        places = (_OF_A_RULE.match(problem.path) for problem in found if problem.level is Level.ERROR)
        return {int(place[1]) for place in places if place is not None}

    def keys(
        self, model: type[_Keys], value: object, path: Path, *, stand_ins: Mapping[str, object]
    ) -> _Keys | None:
        """The value checked against its model, without what did not fit; None where it is no mapping at all.

        Args:
            model: what the mapping must be.
            value: the mapping.
            path: where it stands.
            stand_ins: values for required keys, so that the others can be checked nevertheless.
        """
        fitting = copy.deepcopy(value)
        for attempt in range(_DEEPEST_KEYS):
            try:
                return model.model_validate(fitting)
            except ValidationError as error:
                faults = error.errors(include_url=False)
            for fault in faults:
                if attempt == 0:  # what is missing later is what was left out
                    self.fault(fault, path)
                leave_out(fitting, fault)
            if isinstance(fitting, dict):
                fitting = {**stand_ins, **fitting}
        return None

    def fault(self, fault: ErrorDetails, path: Path) -> None:
        """Report what pydantic found, unless the YAML reader has reported the same value."""
        path = (*path, *fault["loc"])
        is_absent = fault["type"] == "missing" or fault["input"] is None
        if is_absent and written_path(path) in {problem.path for problem in self.tree.problems}:
            return
        context = fault.get("ctx", {})
        raw = self.tree.values[path].raw if path in self.tree.values else None
        if fault["type"] == "missing":
            message, suggestion = "is missing", None
        elif fault["type"] == "extra_forbidden":
            self.unknown_key(path)
            return
        elif fault["type"] == "refused":
            message = f"{shown(raw) if raw is not None else context['value']} {context['fault']}"
            suggestion = context["suggestion"]
        else:
            message, suggestion = "is not a mapping of keys to values", None
        self.report(path, message, suggestion=suggestion)

    def unknown_key(self, path: Path) -> None:
        """Report a key that its mapping does not have, at the key."""
        parents = [step for step in path[:-1] if isinstance(step, str)]
        of_a_rule = parents == ["rules", "budget"]
        model = OwnBudgetKeys if of_a_rule else _MODELS[parents[-1]] if parents else RulesFile
        known, key, at = list(model.model_fields), str(path[-1]), self.tree.keys[path]
        if of_a_rule and key == "burst":
            message, suggestion = "belongs to the top-level budget: it guards all rules together", None
        else:
            message = f"{shown(key)} is not a key here; the keys are {', '.join(known)}"
            suggestion = nearest(key, known)
        self.problems.append(self.tree.problem(path, message, suggestion=suggestion, at=at))

    def rule(self, keys: RuleKeys, template: Rule, path: Path) -> Rule:
        """One rule with what it inherits from the template."""
        rule = replace(
            template,
            name=keys.name,
            object_type=keys.object,
            field=keys.field,
            priority=keys.priority or Priority.NORMAL,
            after=tuple(keys.after or ()),
            sample=1.0 if keys.sample is None else keys.sample,
            enabled=keys.enabled is not False,
            budget=None if keys.budget is None else _budget(keys.budget),
            line=self.tree.place(path).line,
        )
        rule = self.with_keys(rule, keys, path)
        if keys.when is not None:
            rule = replace(rule, when=self.condition(keys.when, rule, (*path, "when")))
        for trigger in rule.on:
            if trigger.action is Action.MERGED and rule.object_type is not ObjectType.LEAD:
                self.report(
                    (*path, "on"), f"merged happens to leads only, and this is a rule for {rule.object_type}s"
                )
            if folded(rule.field) in [folded(name.removeprefix("custom.")) for name in trigger.fields]:
                message = f"runs when {shown(rule.field)} is updated, which it fills: it would trigger itself"
                self.report((*path, "on"), message)
        return rule

    def with_keys(self, rule: Rule, keys: DefaultKeys, path: Path) -> Rule:
        """The rule with what `defaults` or the rule's own keys change."""
        given = {
            "mode": keys.mode,
            "settle_seconds": keys.settle,
            "timeout_seconds": keys.timeout,
            "attempts": keys.attempts,
            "on_ambiguous": keys.on_ambiguous,
            "on": None if keys.on is None else self.triggers(keys.on, (*path, "on")),
            "backoff": None
            if keys.backoff is None
            else self.backoff(rule.backoff, keys.backoff, (*path, "backoff")),
        }
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return replace(rule, **changes)

    def triggers(self, items: list[str], path: Path) -> tuple[Trigger, ...]:
        """The events that the items of an `on` stand for."""
        if not items:
            self.report(path, "names no event")
        triggers: list[Trigger] = []
        for written in read_triggers(items):
            if isinstance(written.meaning, TriggerFault):
                suggestion = written.meaning.suggestion
                self.report((*path, written.index), written.meaning.message, suggestion=suggestion)
            elif written.meaning in triggers:
                self.report((*path, written.index), "stands twice", level=Level.WARNING)
            else:
                triggers.append(written.meaning)
        return tuple(triggers)

    def backoff(self, inherited: Backoff, keys: BackoffKeys, path: Path) -> Backoff:
        """The pauses, where each of the two keys may be inherited."""
        backoff = Backoff(
            first_seconds=inherited.first_seconds if keys.first is None else keys.first,
            most_seconds=inherited.most_seconds if keys.most is None else keys.most,
        )
        if backoff.first_seconds > backoff.most_seconds:
            first, most = format_duration(backoff.first_seconds), format_duration(backoff.most_seconds)
            self.report(path, f"the first pause, {first}, is longer than the longest, {most}")
        return backoff

    def condition(self, expression: str, rule: Rule, path: Path) -> Condition | None:
        """The rule's condition; None, with problems reported, where it is none."""
        condition = compile_condition(expression, object_type=rule.object_type)
        if not isinstance(condition, Condition):
            self.problems.append(condition_problem(self.tree, path, condition))
            return None
        actions = tuple(dict.fromkeys(trigger.action for trigger in rule.on))
        found = check_condition(expression, object_type=rule.object_type, actions=actions)
        self.problems += (condition_problem(self.tree, path, problem) for problem in found)
        return None if any(problem.level is Level.ERROR for problem in found) else condition


def condition_problem(tree: Tree, path: Path, found: ConditionProblem) -> Problem:
    """What is wrong with a condition, at its word in the file where that can be told."""
    at = tree.inside(path, line=found.line, column=found.column)
    message = f"the condition {found.message}"
    return tree.problem(path, message, suggestion=found.suggestion, level=found.level, at=at)


def _whole_budget(keys: BudgetKeys) -> Budget:
    guard = None if keys.burst is None else Burst(most=keys.burst.most, within_seconds=keys.burst.within)
    return _budget(keys, burst=guard)


def _budget(keys: OwnBudgetKeys, *, burst: Burst | None = None) -> Budget:
    return Budget(
        per_day=keys.per_day,
        per_month=keys.per_month,
        on_exhausted=keys.on_exhausted or OnExhausted.WAIT,
        burst=burst,
    )
