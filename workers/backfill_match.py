"""Which fields of a record a backfill wants to fill, and how many there are. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from service.enrichment import State
from service.evidence import record_view
from service.rules import Mode, in_sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from service.binding import BoundRule
    from service.condition import Condition
    from service.schema import Schema

ACTION = "backfill"
"""The `action` of the events that a backfill plans for, in entries and in conditions."""

_PREFIX = "backfill-"
_NOTHING_PAID = frozenset({State.KEPT, State.SKIPPED})


def event_id(run_id: str) -> str:
    """The id of the event that stands for a run in the ledger."""
    return _PREFIX + run_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A rule wants a record's field.

    Attributes:
        rule: its place among the run's rules.
        later: its condition is judged when the rules before it have ended; it may not hold then.
    """

    rule: int
    later: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleTally:
    """What was found for one rule.

    Attributes:
        searched: records whose field it could fill.
        matched: those that it wants.
        known: of these, those that the ledger knows already.
        wanted: those that are left to enrich.
        later: of these, those whose condition is judged when the rules before it have ended.
    """

    searched: int = 0
    matched: int = 0
    known: int = 0
    wanted: int = 0
    later: int = 0

    def plus(self, other: RuleTally) -> RuleTally:
        """Both together."""
        return RuleTally(
            searched=self.searched + other.searched,
            matched=self.matched + other.matched,
            known=self.known + other.known,
            wanted=self.wanted + other.wanted,
            later=self.later + other.later,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Judges the records of one object type.

    Attributes:
        run_id: the backfill's.
        organization_id: whose records they are.
        rules: the run's rules for this object type with their places among all of the run's, in the file's
            order: of two rules for one field the first gets it, if it wants it.
        where: what the person asked for besides, or None.
        schema: the object's custom fields.
    """

    run_id: str
    organization_id: str
    rules: tuple[tuple[int, BoundRule], ...]
    where: Condition | None
    schema: Schema | None

    def matches(self, record: Mapping[str, Any], *, tallies: list[RuleTally]) -> tuple[Match, ...]:
        """The rules that want a record, in the file's order.

        Args:
            record: its `id` and what conditions read.
            tallies: by the rules' places; added to.
        """
        considered = [
            (place, one)
            for place, one in self.rules
            if one.rule.mode is not Mode.FILL or _is_empty(record.get(f"custom.{one.field_id}"))
        ]
        for place, _ in considered:
            tallies[place] = replace(tallies[place], searched=tallies[place].searched + 1)
        view = record_view(record, schema=self.schema) if self._needs_view(considered) else {}
        if self.where is not None and not self._met(self.where, record, view):
            return ()
        taken: set[str] = set()
        wanting: set[str] = set()
        found: list[Match] = []
        for place, one in considered:
            rule = one.rule
            if one.field_id in taken or not in_sample(
                rule_name=rule.name, object_id=str(record["id"]), share=rule.sample
            ):
                continue
            met = rule.when is None or self._met(rule.when, record, view)
            # what the rules before it find may be what its condition is about
            later = not met and not wanting.isdisjoint(rule.after)
            if met or later:
                taken.add(one.field_id)
                wanting.add(rule.name)
                found.append(Match(rule=place, later=later))
                tallies[place] = replace(tallies[place], matched=tallies[place].matched + 1)
        return tuple(found)

    def _needs_view(self, considered: Iterable[tuple[int, BoundRule]]) -> bool:
        return self.where is not None or any(one.rule.when is not None for _, one in considered)

    def _met(self, condition: Condition, record: Mapping[str, Any], view: Mapping[str, Any]) -> bool:
        event = {
            "id": event_id(self.run_id),
            "action": ACTION,
            "object_type": condition.object_type.value,
            "object_id": record["id"],
            "lead_id": record.get("lead_id") or record["id"],
        }
        return condition.judge(record=view, event=event, organization={"id": self.organization_id}).met


def _is_empty(value: object) -> bool:
    """Close omits a field without a value; null, empty text and an empty list mean the same."""
    return value is None or value in ("", [])


def worth_again(state: State, *, mode: Mode) -> bool:
    """Whether a field that the ledger has an end for is enriched all the same.

    It is where nothing was asked, and where a value was only previewed and is to be saved now. What Close
    has answered is not paid for again as long as the ledger remembers it; dead letters are a person's to
    retry.

    Args:
        state: how it ended; one that has not ended yet is never begun twice.
        mode: the rule's.
    """
    return state in _NOTHING_PAID or (state is State.PREVIEWED and mode is not Mode.PREVIEW)
