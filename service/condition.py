"""Conditions: the CEL expression of a rule's `when`, checked once and compiled for `service.evidence`. Pure.

Source: https://github.com/google/cel-spec.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from service import cel_text
from service.cel_engine import cel
from service.evidence import PRESENT, Evidence, Needs, Verdict, flat_name
from service.problem import Level, nearest
from service.record_names import CUSTOM
from service.rules import ObjectType

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LONGEST_CONDITION = 4000
"""Characters; far more than a person writes, far less than the engine's limits on nesting."""


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
        program: what the engine made of it, with other names for some of what it reads.
        needs: what must be handed to the engine for the program.
    """

    source: str
    object_type: ObjectType
    attributes: tuple[str, ...] = ()
    event_attributes: tuple[str, ...] = ()
    custom_fields: tuple[str, ...] = ()
    reads_whole_record: bool = False
    program: cel.Program = field(repr=False, compare=False)
    needs: Needs = field(repr=False, compare=False, default=Needs())

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
    by = {index: (index + 1, PRESENT + words[index].text) for index in asking}
    by |= {} if reads_all else _flattened(words, {i: path for i, path in paths.items() if i not in asking})
    program = cel.compile(cel_text.replaced(source, words, by=by))
    condition = Condition(
        source=source,
        object_type=object_type,
        attributes=attributes,
        event_attributes=_unique(path[0] for path in _paths_read(words, own="event").values() if path),
        custom_fields=custom_fields,
        reads_whole_record=bool(whole),
        program=program,
        needs=Needs(
            variables=frozenset(program.variables()),
            attributes=frozenset(attributes),
            custom_fields=frozenset(custom_fields),
            reads_all=reads_all,
            asks_all=any(index in asking for index in whole),
        ),
    )
    return _rehearsed(condition) or condition


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
            key = json.dumps(flat_name(path[1]), ensure_ascii=False)  # all that JSON escapes CEL does, too
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


def _is_custom(path: tuple[str, ...]) -> bool:
    return bool(path) and (path[0] == "custom" or path[0].startswith(CUSTOM))


def _custom_name(path: tuple[str, ...]) -> str:
    return path[1] if path[0] == "custom" else path[0].removeprefix(CUSTOM)


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


def _variables_of(own: str) -> tuple[str, ...]:
    return (own, "event", "organization")


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
        result = nothing.evaluate(condition)
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
