"""What a process knows: rules and Close's custom fields, bound together. Replaced whole, never changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from service.binding import Bindings, bind
from service.planning import plan
from service.rules import ObjectType, Rule, RuleBook

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from service.condition import Condition
    from service.event import Event
    from service.planning import Ignored, Plan
    from service.schema import Schema


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """Rules and schemas as of one moment.

    Attributes:
        rulebook: the rules file.
        schemas: by object type; one that could not be had yet is missing.
        bindings: the rules with their fields' ids.
    """

    rulebook: RuleBook
    schemas: Mapping[ObjectType, Schema] = field(default_factory=dict)
    bindings: Bindings = field(default_factory=Bindings)

    @classmethod
    def of(cls, rulebook: RuleBook, schemas: Mapping[ObjectType, Schema]) -> Knowledge:
        """Bind rules to schemas."""
        return cls(rulebook=rulebook, schemas=schemas, bindings=bind(rulebook, schemas=schemas))

    @cached_property
    def complete(self) -> bool:
        """True when events can be planned: the organization and all schemas of enabled rules are known."""
        return self.organization_id is not None and all(
            rule.object_type in self.schemas for rule in self.rulebook.enabled
        )

    @cached_property
    def organization_id(self) -> str | None:
        """The organization that the API key belongs to, or None while no schema names it."""
        named = (schema.organization_id for schema in self.schemas.values())
        return next((organization_id for organization_id in named if organization_id), None)

    def plan(self, event: Event, *, own_api_key_id: str | None) -> Plan | Ignored:
        """What the rules make of an event; see `service.planning.plan`.

        Args:
            event: what happened.
            own_api_key_id: our API key's id, whose updates are ours; None when it is not known.
        """
        return plan(
            event,
            bindings=self.bindings,
            organization_id=self.organization_id or "",
            own_api_key_id=own_api_key_id,
            schemas=self.schemas,
        )

    def rule(self, name: str) -> Rule | None:
        """The rule of that name, or None."""
        return self.rulebook.named(name)

    def rule_filling(self, field_id: str, *, name: str, object_type: str) -> Rule | None:
        """The rule of that name, or None; also None where it is for another field or object by now.

        Args:
            field_id: the custom field that the rule filled when an enrichment was planned.
            name: the rule's name.
            object_type: lead or contact.
        """
        rule = self.rule(name)
        if rule is None or rule.object_type != object_type:
            return None
        elsewhere = any(one.rule is rule and one.field_id != field_id for one in self.bindings.bound)
        return None if elsewhere else rule

    def schema(self, object_type: ObjectType) -> Schema | None:
        """The custom fields of leads or contacts, or None while they are unknown."""
        return self.schemas.get(object_type)

    def fields_of_rules(self, names: Iterable[str]) -> tuple[str, ...]:
        """The ids of the fields that these rules fill; rules without a known field are left out."""
        wanted = set(names)
        return tuple(bound.field_id for bound in self.bindings.bound if bound.rule.name in wanted)

    def fields_waiting_for(self, rule_name: str) -> tuple[str, ...]:
        """The ids of the fields whose rules run after the named one."""
        return tuple(bound.field_id for bound in self.bindings.bound if rule_name in bound.rule.after)

    def fields_to_read(
        self, object_type: ObjectType, field_id: str, *, when: Condition | None = None
    ) -> frozenset[str] | None:
        """What one read of a record must bring for any of its rules; None for the whole record.

        `_fields=custom.<id>` is documented for leads only, so contacts, which are small, are read whole.

        Args:
            object_type: lead or contact.
            field_id: the custom field that is to be filled.
            when: the condition that is to be judged; new rules may have replaced it since its work began.
        """
        if object_type is not ObjectType.LEAD:
            return None
        of_leads = [bound for bound in self.bindings.bound if bound.rule.object_type is ObjectType.LEAD]
        conditions = [one for one in (when, *(bound.rule.when for bound in of_leads)) if one is not None]
        if any(one.custom_fields or one.reads_whole_record for one in conditions):
            return None
        custom = {f"custom.{bound.field_id}" for bound in of_leads} | {f"custom.{field_id}"}
        named = {name for condition in conditions for name in condition.attributes}
        return frozenset({"id"} | custom | named)
