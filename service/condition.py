"""Conditions: the CEL expression of a rule's `when`, checked once and judged on records.

A field without a value is absent for `has()` and `in`, and reads as empty text everywhere else (a list
attribute as an empty list). So `lead.url != ""` is false for a lead whose `url` is missing, null or
empty, and so is `has(lead.url)`. Nothing of a record enters a reason, so reasons can be stored and logged.

Source: https://github.com/google/cel-spec; attributes: https://developer.close.com/api/resources/leads and
https://developer.close.com/api/resources/contacts, as events carry them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from service import cel_text
from service.cel_engine import cel
from service.problem import Level, nearest
from service.rules import ObjectType

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from service.event import Event
    from service.schema import Schema

LONGEST_CONDITION = 4000
"""Characters; far more than a person writes, far less than the engine's limits on nesting."""

LEAD_ATTRIBUTES = frozenset(
    {"id", "organization_id", "name", "display_name", "description", "url", "addresses", "contact_ids",
     "status_id", "status_label", "created_by", "created_by_name", "updated_by", "updated_by_name",
     "date_created", "date_updated"}
)  # fmt: skip
CONTACT_ATTRIBUTES = frozenset(
    {"id", "lead_id", "organization_id", "name", "display_name", "title", "emails", "phones", "urls",
     "timezone", "timezone_source", "integration_links", "created_by", "updated_by", "date_created",
     "date_updated"}
)  # fmt: skip
ATTRIBUTES = {ObjectType.LEAD: LEAD_ATTRIBUTES, ObjectType.CONTACT: CONTACT_ATTRIBUTES}
"""What Close's events say about a lead or contact beside its custom fields."""

EVENT_ATTRIBUTES = frozenset(
    {"id", "action", "object_type", "object_id", "lead_id", "date_created", "changed_fields"}
)
"""What a condition may ask about the event."""

FORGOTTEN_ATTRIBUTES = frozenset({"date_created", "changed_fields"})
"""Those that an enrichment does not keep: a condition that is judged after `settle` finds them empty."""

LIST_ATTRIBUTES = frozenset(
    {"addresses", "contact_ids", "emails", "phones", "urls", "integration_links", "changed_fields"}
)
"""The attributes, of records and events, that are lists; all others are text."""

_CUSTOM = "custom."
_PRESENT = "present_"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionProblem:
    """What is wrong with a condition. Line and column are counted from 1 within the expression.

    `message` continues a sentence that begins with the condition. A warning does not keep it from being used.
    """

    line: int
    column: int
    message: str
    suggestion: str | None = None
    level: Level = Level.ERROR


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A checked expression. Made by `compile_condition`; may be judged from several threads at once.

    Attributes:
        source: the expression as written.
        object_type: whose records it can judge.
        attributes: the record's attributes it names, without custom fields.
        event_attributes: the event's attributes it names.
        custom_fields: the custom fields it names, by name or id: `lead.custom[…]` or `lead["custom.<id>"]`.
        reads_whole_record: whether it also uses `lead` or `lead.custom` as a whole, as in `"url" in lead`;
            if not, the attributes and custom fields it names are all it needs.
    """

    source: str
    object_type: ObjectType
    attributes: tuple[str, ...] = ()
    event_attributes: tuple[str, ...] = ()
    custom_fields: tuple[str, ...] = ()
    reads_whole_record: bool = False
    _program: cel.Program = field(repr=False, compare=False)
    _used: frozenset[str] = field(repr=False, compare=False, default=frozenset())

    def judge(
        self, *, record: Mapping[str, Any], event: Mapping[str, Any], organization: Mapping[str, Any]
    ) -> Verdict:
        """Whether the record meets the condition; no evaluation error escapes.

        Args:
            record: what `record_view` made of the lead or contact.
            event: what `event_view` made of the event.
            organization: `{"id": …}`.
        """
        try:
            result = self._program.execute(self._variables(record, event, organization))
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            return Verdict(met=False, reason=_reason(error))
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # a bug in the engine, and no ordinary Exception
                raise
            return Verdict(met=False, reason="the condition could not be evaluated")
        if not isinstance(result, bool):
            return Verdict(met=False, reason=_NOT_BOOLEAN)
        return Verdict(met=result, reason="the condition is met" if result else "the condition is not met")

    def _variables(
        self, record: Mapping[str, Any], event: Mapping[str, Any], organization: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The variables that the program uses, each as it reads or as it is asked for presence."""
        own = self.object_type.value
        flat = [_CUSTOM + name for name in self.custom_fields]
        present = {"custom": {}} | _with_values(record)
        if not self.reads_whole_record:  # what is not handed over need not be converted for the engine
            named = {*self.attributes, *flat, "custom"}
            present = {name: value for name, value in present.items() if name in named}
        reads = _blank([*ATTRIBUTES[self.object_type], *flat]) | present
        reads["custom"] = _blank(self.custom_fields) | present["custom"]
        happened = _with_values(event)
        variables = {
            own: reads,
            _PRESENT + own: present,
            "event": _blank(EVENT_ATTRIBUTES) | happened,
            _PRESENT + "event": happened,
            "organization": dict(organization),
            _PRESENT + "organization": dict(organization),
        }
        return {name: value for name, value in variables.items() if name in self._used}


def compile_condition(source: str, *, object_type: ObjectType) -> Condition | ConditionProblem:
    """Check an expression over `lead` or `contact`, `event` and `organization`.

    Args:
        source: the CEL expression.
        object_type: whose records it will judge; its value is the record's variable.
    """
    if not source.strip():
        return ConditionProblem(line=1, column=1, message="is empty")
    if len(source) > LONGEST_CONDITION:
        return ConditionProblem(line=1, column=1, message=f"is longer than {LONGEST_CONDITION} characters")
    try:
        references = cel.compile(source).references()
    except UnicodeError:
        return ConditionProblem(line=1, column=1, message="holds half a character (a lone surrogate)")
    except ValueError as error:
        found = cel_text.syntax_problem(source, str(error))
        return ConditionProblem(
            line=found.line, column=found.column, message=found.message, suggestion=found.suggestion
        )
    words = cel_text.tokens(source)
    problem = _name_problem(source, words, references, own=object_type.value)
    if problem is not None:
        return problem
    roots = {name: _PRESENT + name for name in _variables_of(object_type.value)}
    asking = [i for i, word in enumerate(words) if word.text in roots and cel_text.is_root(words, i)
              and cel_text.asks_presence(words, i)]  # fmt: skip
    paths = _paths_read(words, own=object_type.value)
    program = cel.compile(cel_text.replaced(source, words, at=asking, names=roots))
    condition = Condition(
        source=source,
        object_type=object_type,
        attributes=_unique(path[0] for path in paths if path and not _is_custom(path)),
        event_attributes=_unique(path[0] for path in _paths_read(words, own="event") if path),
        custom_fields=_unique(
            _custom_name(path) for path in paths if _is_custom(path) and path != ("custom",)
        ),
        reads_whole_record=any(path in ((), ("custom",)) for path in paths),
        _program=program,
        _used=frozenset(program.variables()),
    )
    return _rehearsed(condition) or condition


def record_view(data: Mapping[str, Any], *, schema: Schema | None) -> dict[str, Any]:
    """A lead or contact as Close gives it, made ready for conditions.

    Empty fields (null, empty text, empty list) are left out. `custom` holds the custom fields by id, and by
    name where `schema` tells it and no two fields share it.
    """
    view = _with_values(data)
    custom = {key.removeprefix(_CUSTOM): value for key, value in view.items() if key.startswith(_CUSTOM)}
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


def _with_values(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that have a value; Close omits the others or gives null, empty text or an empty list."""
    return {key: value for key, value in record.items() if value is not None and value not in ("", [])}


def _blank(names: Iterable[str]) -> dict[str, Any]:
    return {name: [] if name in LIST_ATTRIBUTES else "" for name in names}


def _variables_of(own: str) -> tuple[str, ...]:
    return (own, "event", "organization")


def custom_fields_read(source: str, *, object_type: ObjectType) -> tuple[tuple[str, int], ...]:
    """The custom fields that a condition names, each with the place of its first use, counted from 0.

    Args:
        source: an expression that compiles.
        object_type: whose records it judges.
    """
    words = cel_text.tokens(source)
    found: dict[str, int] = {}
    for index, word in enumerate(words):
        if word.text == object_type.value and cel_text.is_root(words, index):
            steps = cel_text.path_after(words, index)[0]
            path = tuple(map(_spelt, steps))
            if _is_custom(path) and path != ("custom",):
                found.setdefault(_custom_name(path), steps[min(len(steps) - 1, path[0] == "custom")].start)
    return tuple(found.items())


def _paths_read(words: tuple[cel_text.Token, ...], *, own: str) -> list[tuple[str, ...]]:
    """The constant path behind each use of the record."""
    return [
        tuple(_spelt(step) for step in cel_text.path_after(words, index)[0])
        for index, word in enumerate(words)
        if word.text == own and cel_text.is_root(words, index)
    ]


def _is_custom(path: tuple[str, ...]) -> bool:
    return bool(path) and (path[0] == "custom" or path[0].startswith(_CUSTOM))


def _custom_name(path: tuple[str, ...]) -> str:
    return path[1] if path[0] == "custom" else path[0].removeprefix(_CUSTOM)


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _spelt(word: cel_text.Token) -> str:
    """The field's name that a name or a quoted text stands for."""
    return str(cel.evaluate(word.text)) if word.kind == "text" else word.text


def _name_problem(
    source: str, words: tuple[cel_text.Token, ...], references: Mapping[str, list[str]], *, own: str
) -> ConditionProblem | None:
    """The first word of the text that the condition may not use."""
    for index, word in enumerate(words):
        fault = _fault(words, index, references, own=own) if word.kind == "name" else None
        if fault is not None:
            line, column = cel_text.position(source, word.start)
            return ConditionProblem(line=line, column=column, message=fault[0], suggestion=fault[1])
    return None


def _fault(
    words: tuple[cel_text.Token, ...], index: int, references: Mapping[str, list[str]], *, own: str
) -> tuple[str, str | None] | None:
    """What is wrong with a name, and the nearest right one."""
    name, allowed, loops = words[index].text, _variables_of(own), cel_text.loop_variables(words)
    if not cel_text.is_root(words, index):
        if cel_text.opens_has(words, index) and words[index + 2].kind != "name":
            return f"needs a field in has(), as in has({own}.name)", None
        unknown = name in references["functions"] and name not in cel_text.FUNCTIONS
        return _unknown_function(name) if unknown else None
    if name == "null":
        return 'compares with null, but a field without a value is empty text: compare with ""', None
    if name in loops:
        return (f"loops over '{name}', which is taken; use another name", None) if name in allowed else None
    if name in references["variables"] and name not in allowed:
        meant = own if name in list(ObjectType) else nearest(name, allowed)
        return f"uses '{name}', which is not one of {', '.join(allowed)}", meant
    return None


def _unknown_function(name: str) -> tuple[str, str | None]:
    if name in cel_text.LOOPS or name == "has":
        return f"does not give {name}() what it takes", None
    return f"calls {name}(), which does not exist", nearest(
        name, cel_text.FUNCTIONS | cel_text.LOOPS | {"has"}
    )


def _rehearsed(condition: Condition) -> ConditionProblem | None:
    """What goes wrong even for a record without any value."""
    try:
        result = condition._program.execute(condition._variables({}, {}, {"id": ""}))  # noqa: SLF001 - our own class
    except RuntimeError as error:
        if "not a valid regex" in str(error):
            return ConditionProblem(line=1, column=1, message="has a pattern in matches() that is not valid")
        return None
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return None  # as it may go well with values
    if isinstance(result, bool):
        return None
    return ConditionProblem(
        line=1, column=1, message="gives neither true nor false; compare it with something"
    )


def _reason(error: Exception) -> str:
    return next(
        (reason for kind, reason in _REASONS if isinstance(error, kind)),
        "the condition could not be evaluated",
    )
