"""What a condition is judged on: a record and an event as conditions see them, and the verdict. Pure.

A field without a value is absent for `has()` and `in`, and reads as empty text everywhere else (a list
attribute as an empty list). So `lead.url != ""` is false for a lead whose `url` is missing, null or
empty, and so is `has(lead.url)`. Nothing of a record enters a reason, so reasons can be stored and logged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.cel_engine import cel
from service.record_names import ATTRIBUTES, CUSTOM, EVENT_ATTRIBUTES, LIST_ATTRIBUTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from service.condition import Condition
    from service.event import Event
    from service.rules import ObjectType
    from service.schema import Schema

PRESENT = "present_"
"""Set before a variable's name in the compiled expression where presence is asked for."""

_NOT_BOOLEAN = "the condition gives neither true nor false"
_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (ZeroDivisionError, "the condition divides by zero"),
    (OverflowError, "the condition calculates with a number that is out of range"),
    (IndexError, "the condition reads a place beyond the end of a list"),
    (KeyError, "the condition reads a field that is not known"),
    (TypeError, "the condition combines values of different kinds; a field without a value is empty text"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a record meets a condition, and if not, why. The reason never holds a record's value."""

    met: bool
    reason: str


_MET = Verdict(met=True, reason="the condition is met")
_NOT_MET = Verdict(met=False, reason="the condition is not met")


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What must be handed to the engine for a program, or for several.

    Attributes:
        variables: those of `Evidence`, by the names that they have in programs.
        attributes: the record's attributes that are read or asked for.
        custom_fields: likewise, by name or id.
        reads_all: the record is also read as a whole, so what is absent from it must be, too.
        asks_all: the record is also asked as a whole what it has.
    """

    variables: frozenset[str] = frozenset()
    attributes: frozenset[str] = frozenset()
    custom_fields: frozenset[str] = frozenset()
    reads_all: bool = False
    asks_all: bool = False

    def covers(self, other: Needs) -> bool:
        """Whether a program can be given this in place of its own, and will not know the difference."""
        return (
            not other.reads_all
            and self.asks_all >= other.asks_all
            and self.custom_fields >= other.custom_fields
            and self.attributes >= other.attributes
            and self.variables >= other.variables
        )


class Evidence:
    """One record and event, to judge many conditions on: for most of them it is converted once.

    To convert it for the engine takes far longer than a condition. Used by one thread at a time.
    """

    __slots__ = ("_common", "_context", "_event", "_organization", "_record")

    def __init__(
        self,
        *,
        record: Mapping[str, Any],
        event: Mapping[str, Any],
        organization: Mapping[str, Any],
        conditions: Iterable[Condition] = (),
    ) -> None:
        """Take what conditions are judged on; nothing of it may change afterwards.

        Args:
            record: what `record_view` made of the lead or contact.
            event: what `event_view` made of the event.
            organization: `{"id": …}`.
            conditions: those that will be judged; others can be, each at the price of its own conversion.
        """
        self._record, self._event, self._organization = record, event, organization
        self._common = _common_needs(conditions)
        self._context: cel.Context | None = None

    def judge(self, condition: Condition) -> Verdict:
        """Whether the record meets a condition; no evaluation error escapes."""
        try:
            result = self.evaluate(condition)
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            return Verdict(met=False, reason=_reason(error))
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # a bug in the engine, and no ordinary Exception
                raise
            self._context = None  # nobody knows what the bug left behind
            return Verdict(met=False, reason="the condition could not be evaluated")
        if not isinstance(result, bool):
            return Verdict(met=False, reason=_NOT_BOOLEAN)
        return _MET if result else _NOT_MET

    def evaluate(self, condition: Condition) -> Any:
        """What a condition gives, of whatever kind; the engine's errors escape."""
        return condition.program.execute(self._context_for(condition))

    def _context_for(self, condition: Condition) -> cel.Context:
        """The variables as the engine keeps them."""
        needs, own = condition.needs, condition.object_type
        if not self._common.covers(needs):
            return cel.Context(variables=self._variables(needs, own))
        if self._context is None:
            self._context = cel.Context(variables=self._variables(self._common, own))
        return self._context

    def _variables(self, needs: Needs, object_type: ObjectType) -> dict[str, Any]:
        """The variables that programs use, each as it reads or as it is asked for presence."""
        own, known = object_type.value, ATTRIBUTES[object_type]
        flat = [CUSTOM + name for name in needs.custom_fields]
        present = {"custom": {}} | _with_values(self._record)
        custom = _only(needs.custom_fields, present["custom"])
        # what is not handed over need not be converted for the engine
        named = _only([*needs.attributes, *flat], present)
        blank_custom = _blank(needs.custom_fields)
        if needs.reads_all:
            reads = _blank([*known, *flat]) | present | {"custom": blank_custom | present["custom"]}
        else:
            by_flat_name = {flat_name(name): value for name, value in (blank_custom | custom).items()}
            reads = _blank([*(known & needs.attributes), *flat]) | named | by_flat_name
        happened = _with_values(self._event)
        variables = {
            own: reads,
            PRESENT + own: present if needs.asks_all else named | {"custom": custom},
            "event": _blank(EVENT_ATTRIBUTES) | happened,
            PRESENT + "event": happened,
            "organization": dict(self._organization),
            PRESENT + "organization": dict(self._organization),
        }
        return {name: value for name, value in variables.items() if name in needs.variables}


def record_view(data: Mapping[str, Any], *, schema: Schema | None) -> dict[str, Any]:
    """A lead or contact as Close gives it, made ready for conditions.

    Empty fields (null, empty text, empty list) are left out. `custom` holds the custom fields by id, and by
    name where `schema` tells it and no two fields share it.
    """
    view = _with_values(data)
    custom = {key.removeprefix(CUSTOM): value for key, value in view.items() if key.startswith(CUSTOM)}
    if schema is not None:
        names = [known.name for known in schema.fields]
        custom |= {
            known.name: custom[known.id]
            for known in schema.fields
            if known.id in custom and known.name not in custom and names.count(known.name) == 1
        }
    return view | {"custom": custom}


def event_view(event: Event) -> dict[str, Any]:
    """What conditions may know about an event."""
    view = {name: getattr(event, name) for name in EVENT_ATTRIBUTES}
    return view | {"changed_fields": list(event.changed_fields)}


def flat_name(name: str) -> str:
    """Where a custom field stands in the record beside `custom`, by the name that a condition gives it."""
    return f"custom[{name}]"


def _common_needs(conditions: Iterable[Condition]) -> Needs:
    """What all conditions need that do not read the record as a whole; one that does needs it to itself."""
    shared = [one.needs for one in conditions if not one.needs.reads_all]
    return Needs(
        variables=frozenset().union(*(one.variables for one in shared)),
        attributes=frozenset().union(*(one.attributes for one in shared)),
        custom_fields=frozenset().union(*(one.custom_fields for one in shared)),
        asks_all=any(one.asks_all for one in shared),
    )


def _with_values(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that have a value; Close omits the others or gives null, empty text or an empty list."""
    return {key: value for key, value in record.items() if value is not None and value not in ("", [])}


def _only(names: Iterable[str], record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in names if name in record}


def _blank(names: Iterable[str]) -> dict[str, Any]:
    return {name: [] if name in LIST_ATTRIBUTES else "" for name in names}


def _reason(error: Exception) -> str:
    return next(
        (reason for kind, reason in _REASONS if isinstance(error, kind)),
        "the condition could not be evaluated",
    )
