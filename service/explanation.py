"""An explanation: what an event leads to, and why. Frozen values that hold a record's values; no I/O.

Made by `service.explain`; told by the command line and the dashboard.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from service.verdicts import Outcome

if TYPE_CHECKING:
    from service.condition_trace import ConditionTrace
    from service.enrichment import State
    from service.rules import Mode, ObjectType, Priority
    from service.verdicts import Moment


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLeft:
    """A budget that a call falls under; `spent` is None where nobody could be asked."""

    words: str
    limit: int
    spent: int | None

    @property
    def left(self) -> int | None:
        """Credits left in the present window."""
        return None if self.spent is None else max(0, self.limit - self.spent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What the ledger has about a field.

    Attributes:
        state: where its enrichment stands.
        rule: the rule that planned it.
        at_ms: since when, Unix milliseconds.
        credits: calls that Close may have charged for.
    """

    state: State
    rule: str
    at_ms: int
    credits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleExplanation:
    """One rule and the event.

    Attributes:
        rule: its name.
        object_type: what it is for.
        field: the custom field as the rule names it.
        field_id, field_name: the custom field at Close; None where it is not known.
        outcome: what becomes of it.
        reason: why, in words.
        planned: the receiver plans it.
        judged: when the condition is judged; None where there is none, or it is not asked.
        condition: what the condition saw; None where there is none, it is not asked, or there is no data.
        mode, settle_seconds, priority, after: as the rule has them.
        sample: the share of records that it wants.
        in_sample: whether the record is in that share, as it always will be.
        budgets: what a call falls under.
        recorded: what the ledger has about the field, or None.
        credits_at_most: what it costs, by what is known here.
    """

    rule: str
    object_type: ObjectType
    field: str
    field_id: str | None
    field_name: str | None
    outcome: Outcome
    reason: str
    planned: bool
    judged: Moment | None
    condition: ConditionTrace | None
    mode: Mode
    settle_seconds: float
    priority: Priority
    after: tuple[str, ...]
    sample: float
    in_sample: bool
    budgets: tuple[BudgetLeft, ...]
    recorded: Recorded | None

    @property
    def credits_at_most(self) -> int:
        """One call, where there may be one."""
        return int(self.outcome in {Outcome.CALL, Outcome.NOT_JUDGED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What an event leads to, and why.

    Attributes:
        event_id: `ev_…`; None for a record that is explained as if it had just been created.
        type: such as `lead.created`.
        object_id: the record.
        lead_id: the lead it belongs to, or None.
        ignored: why no rule is asked, or None.
        limits: sentences about what could not be told, or rests on something else than it will.
        rules: every rule of the file, in its order.
    """

    event_id: str | None
    type: str
    object_id: str
    lead_id: str | None
    ignored: str | None
    limits: tuple[str, ...]
    rules: tuple[RuleExplanation, ...]

    @property
    def calls(self) -> int:
        """Rules for which Close would be asked."""
        return sum(one.outcome is Outcome.CALL for one in self.rules)

    @property
    def credits_at_most(self) -> int:
        """What all rules cost, by what is known here."""
        return sum(one.credits_at_most for one in self.rules)

    def describe(self) -> dict[str, Any]:
        """The explanation as plain data, with the record's values that conditions saw."""
        rules = [asdict(one) | {"credits_at_most": one.credits_at_most} for one in self.rules]
        return asdict(self) | {
            "rules": rules,
            "calls": self.calls,
            "credits_at_most": self.credits_at_most,
        }
