"""Conditions: the CEL expression of a rule's `when`, checked once and judged on records.

A field without a value is absent for `has()` and `in`, and reads as empty text everywhere else (a list
attribute as an empty list). So `lead.url != ""` is false for a lead whose `url` is missing, null or
empty, and so is `has(lead.url)`. Nothing of a record enters a reason, so reasons can be stored and logged.

Source: https://github.com/google/cel-spec; attributes: https://developer.close.com/api/resources/leads and
https://developer.close.com/api/resources/contacts, as events carry them.
"""

from __future__ import annotations

import json
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


_MET = Verdict(met=True, reason="the condition is met")
_NOT_MET = Verdict(met=False, reason="the condition is not met")


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
class _Needs:
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

    def covers(self, other: _Needs) -> bool:
        """Whether a program can be given this in place of its own, and will not know the difference."""
        return (
            not other.reads_all
            and self.asks_all >= other.asks_all
            and self.custom_fields >= other.custom_fields
            and self.attributes >= other.attributes
            and self.variables >= other.variables
        )


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
    _needs: _Needs = field(repr=False, compare=False, default=_Needs())

    def judge(
        self, *, record: Mapping[str, Any], event: Mapping[str, Any], organization: Mapping[str, Any]
    ) -> Verdict:
        """Whether the record meets the condition; no evaluation error escapes.

        Args:
            record: what `record_view` made of the lead or contact.
            event: what `event_view` made of the event.
            organization: `{"id": …}`.
        """
        return Evidence(record=record, event=event, organization=organization).judge(self)


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
            result = condition._program.execute(self._context_for(condition))  # noqa: SLF001 - our own class
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

    def _context_for(self, condition: Condition) -> cel.Context:
        """The variables as the engine keeps them."""
        needs, own = condition._needs, condition.object_type  # noqa: SLF001 - our own class
        if not self._common.covers(needs):
            return cel.Context(variables=self._variables(needs, own))
        if self._context is None:
            self._context = cel.Context(variables=self._variables(self._common, own))
        return self._context

    def _variables(self, needs: _Needs, object_type: ObjectType) -> dict[str, Any]:
        """The variables that programs use, each as it reads or as it is asked for presence."""
        own, known = object_type.value, ATTRIBUTES[object_type]
        flat = [_CUSTOM + name for name in needs.custom_fields]
        present = {"custom": {}} | _with_values(self._record)
        custom = _only(needs.custom_fields, present["custom"])
        # what is not handed over need not be converted for the engine
        named = _only([*needs.attributes, *flat], present)
        blank_custom = _blank(needs.custom_fields)
        if needs.reads_all:
            reads = _blank([*known, *flat]) | present | {"custom": blank_custom | present["custom"]}
        else:
            by_flat_name = {_flat_name(name): value for name, value in (blank_custom | custom).items()}
            reads = _blank([*(known & needs.attributes), *flat]) | named | by_flat_name
        happened = _with_values(self._event)
        variables = {
            own: reads,
            _PRESENT + own: present if needs.asks_all else named | {"custom": custom},
            "event": _blank(EVENT_ATTRIBUTES) | happened,
            _PRESENT + "event": happened,
            "organization": dict(self._organization),
            _PRESENT + "organization": dict(self._organization),
        }
        return {name: value for name, value in variables.items() if name in needs.variables}


def _common_needs(conditions: Iterable[Condition]) -> _Needs:
    """What all conditions need that do not read the record as a whole; one that does needs it to itself."""
    shared = [one._needs for one in conditions if not one._needs.reads_all]  # noqa: SLF001 - our own class
    return _Needs(
        variables=frozenset().union(*(one.variables for one in shared)),
        attributes=frozenset().union(*(one.attributes for one in shared)),
        custom_fields=frozenset().union(*(one.custom_fields for one in shared)),
        asks_all=any(one.asks_all for one in shared),
    )


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
    roots = _variables_of(object_type.value)
    asking = [i for i, word in enumerate(words) if word.text in roots and cel_text.is_root(words, i)
              and cel_text.asks_presence(words, i)]  # fmt: skip
    paths = _paths_read(words, own=object_type.value)
    attributes = _unique(path[0] for path in paths.values() if path and not _is_custom(path))
    custom_fields = _unique(
        _custom_name(path) for path in paths.values() if _is_custom(path) and path != ("custom",)
    )
    whole = [index for index, path in paths.items() if path in ((), ("custom",))]
    reads_all = any(index not in asking for index in (*whole, *_reads_by_bytes(words, paths)))
    by = {index: (index + 1, _PRESENT + words[index].text) for index in asking}
    by |= {} if reads_all else _flattened(words, {i: path for i, path in paths.items() if i not in asking})
    program = cel.compile(cel_text.replaced(source, words, by=by))
    condition = Condition(
        source=source,
        object_type=object_type,
        attributes=attributes,
        event_attributes=_unique(path[0] for path in _paths_read(words, own="event").values() if path),
        custom_fields=custom_fields,
        reads_whole_record=bool(whole),
        _program=program,
        _needs=_Needs(
            variables=frozenset(program.variables()),
            attributes=frozenset(attributes),
            custom_fields=frozenset(custom_fields),
            reads_all=reads_all,
            asks_all=any(index in asking for index in whole),
        ),
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


def _only(names: Iterable[str], record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in names if name in record}


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


def _paths_read(words: tuple[cel_text.Token, ...], *, own: str) -> dict[int, tuple[str, ...]]:
    """The constant path behind each use of the record, by the use's index."""
    return {
        index: tuple(_spelt(step) for step in cel_text.path_after(words, index)[0])
        for index, word in enumerate(words)
        if word.text == own and cel_text.is_root(words, index)
    }


def _flattened(
    words: tuple[cel_text.Token, ...], paths: Mapping[int, tuple[str, ...]]
) -> dict[int, tuple[int, str]]:
    """What to put for each `lead.custom["X"]`, by its index: the engine would copy the whole map."""
    found: dict[int, tuple[int, str]] = {}
    for index, path in paths.items():
        if path[0] == "custom":
            steps = cel_text.path_after(words, index)[0][:2]
            behind = index + 1 + sum(3 if step.kind == "text" else 2 for step in steps)
            key = json.dumps(_flat_name(path[1]), ensure_ascii=False)  # all that JSON escapes CEL does, too
            found[index] = (behind, f"{words[index].text}[{key}]")
    return found


def _reads_by_bytes(words: tuple[cel_text.Token, ...], paths: Iterable[int]) -> list[int]:
    """The uses with bytes for a key, as in `lead.custom[b"X"]`: an error, which is left to the engine."""
    return [
        index
        for index in paths
        if any(
            step.kind == "text" and step.text[:2].lower() in {'b"', "b'", "br", "rb"}
            for step in cel_text.path_after(words, index)[0][:2]
        )
    ]


def _flat_name(name: str) -> str:
    """Where a custom field stands in the record beside `custom`, by the name that a condition gives it."""
    return f"custom[{name}]"


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
        nothing = Evidence(record={}, event={}, organization={"id": ""})
        result = condition._program.execute(nothing._context_for(condition))  # noqa: SLF001 - our own class
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
