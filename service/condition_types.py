"""Which kinds of values the parts of a condition have, and where they do not go together. Pure.

Known are the kinds of literals, of what Close's events carry, and, with an organization's schema, of custom
fields. Whatever is not known goes together with everything, so that nothing right is refused. A field without
a value reads as empty text, which is why a number may be compared with `""`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from service.cel_tree import Kind, Node
from service.problem import Level, nearest, shown
from service.record_names import ATTRIBUTES, EVENT_ATTRIBUTES, LIST_ATTRIBUTES
from service.schema import CustomField
from service.value_kinds import (
    A_TEXT,
    BLANK,
    BYTES,
    LIST,
    LOOP_RESULTS,
    MAP,
    NUMBER,
    ORDERED,
    RESULTS,
    SPAN,
    TEXT,
    TEXT_METHODS,
    TIME,
    TRUTH,
    Kinds,
    custom_field,
    in_quotes,
    is_number_text,
    kinds_of_field,
    literal_kind,
    spoken,
    with_value,
)

if TYPE_CHECKING:
    from service.rules import ObjectType
    from service.schema import Schema

_LONGEST_SHOWN = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something wrong at a character of an expression; `message` continues "the condition"."""

    at: int
    message: str
    suggestion: str | None = None
    level: Level = Level.ERROR


def type_faults(
    tree: Node, source: str, *, object_type: ObjectType, schema: Schema | None = None
) -> tuple[Fault, ...]:
    """Everything in an expression that does not go together, in the order of its words.

    Args:
        tree: the expression.
        source: its text.
        object_type: whose records it judges.
        schema: the organization's custom fields, where they are known.
    """
    check = _Check(source=source, object_type=object_type, schema=schema)
    result = check.kinds(tree)
    if result is not None and TRUTH not in result:
        check.report(tree.start, f"gives {spoken(result)}, not true or false; compare it with something")
    elif result is not None and result != {TRUTH}:
        check.report(
            tree.start, "does not always give true or false; compare the other values with something"
        )
    return tuple(sorted(check.faults, key=lambda fault: fault.at))


@dataclass(slots=True, kw_only=True)
class _Check:
    """One walk over an expression."""

    source: str
    object_type: ObjectType
    schema: Schema | None
    faults: list[Fault] = field(default_factory=list)

    def report(
        self, at: int, message: str, suggestion: str | None = None, *, level: Level = Level.ERROR
    ) -> None:
        self.faults.append(Fault(at=at, message=message, suggestion=suggestion, level=level))

    def written(self, node: Node) -> str:
        text = " ".join(self.source[node.start : node.end].split())
        return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…"

    def kinds(self, node: Node) -> Kinds:
        """The kinds the node's value may have; what is wrong below it is reported."""
        readers = {
            Kind.NAME: self._read,
            Kind.FIELD: self._read,
            Kind.INDEX: self._read,
            Kind.CALL: self._call,
            Kind.METHOD: self._method,
            Kind.UNARY: self._unary,
            Kind.BINARY: self._binary,
            Kind.CHOICE: self._choice,
        }
        if node.kind is Kind.LITERAL:
            return frozenset({literal_kind(node.value)})
        if node.kind in readers:
            return readers[node.kind](node)
        for part in node.parts:
            self.kinds(part)
        return frozenset({LIST if node.kind is Kind.LIST else MAP})

    def _read(self, node: Node) -> Kinds:
        path = node.path()
        if path is not None and path[0] in {self.object_type.value, "event", "organization"}:
            return self._variable(node, path)
        if node.kind is Kind.NAME:
            return None  # bound by a loop
        return self._part_of(node, self.kinds(node.parts[0]))

    def _variable(self, node: Node, path: tuple[str, ...]) -> Kinds:
        """What is read from the record, the event or the organization by constant names."""
        custom = custom_field(path)
        if custom is not None:
            found = None if self.schema is None else self.schema.lookup(custom)
            return kinds_of_field(found) if isinstance(found, CustomField) else None
        if len(path) == 1 or path[1:] == ("custom",):
            return frozenset({MAP})
        if len(path) > 2:  # noqa: PLR2004 - variable and attribute
            return self._part_of(node, self.kinds(node.parts[0]))
        root, name = path
        if root == self.object_type.value:
            known = ATTRIBUTES[self.object_type]
            if name not in known:
                message = f"reads {root}.{name}, which Close's events are not known to have"
                self.report(node.at, message, nearest(name, known), level=Level.WARNING)
                return None
        else:
            known = EVENT_ATTRIBUTES if root == "event" else frozenset({"id"})
            if name not in known:
                message = f"reads {root}.{name}; {root} has {', '.join(sorted(known))}"
                self.report(node.at, message, nearest(name, known))
                return None
        return frozenset({LIST}) if name in LIST_ATTRIBUTES else A_TEXT

    def _part_of(self, node: Node, base: Kinds) -> Kinds:
        """What is taken out of a value of these kinds."""
        whole = node.parts[0]
        if node.kind is Kind.INDEX:
            self.kinds(node.parts[1])
        if base is None or MAP in base or (LIST in base and node.kind is Kind.INDEX):
            return None
        if LIST in base:
            message = f"reads '{node.text}' of {self.written(whole)}, which is a list"
            self.report(node.at, message, f"{self.written(whole)}.exists(one, one.{node.text} …)")
        else:
            self.report(node.at, f"reads a part of {self.written(whole)}, which is {spoken(base)}")
        return None

    def _call(self, node: Node) -> Kinds:
        if node.text == "has" and len(node.parts) == 1:
            self.kinds(node.parts[0])
            return RESULTS["has"]
        given = [self.kinds(part) for part in node.parts]
        if node.text == "size" and len(given) == 1:
            self._sized(node.parts[0], given[0])
        return RESULTS.get(node.text)

    def _sized(self, node: Node, given: Kinds) -> None:
        if given is not None and given.isdisjoint({TEXT, BLANK, LIST, MAP, BYTES}):
            self.report(node.start, f"takes the size of {self.written(node)}, which is {spoken(given)}")

    def _method(self, node: Node) -> Kinds:
        target, name = node.parts[0], node.text
        given = self.kinds(target)
        if name in LOOP_RESULTS:
            for part in node.parts[2:]:
                self.kinds(part)
            if given is not None and given.isdisjoint({LIST, MAP}):
                self.report(
                    node.at,
                    f"loops over {self.written(target)}, which is {spoken(given)} and not a list",
                )
            return LOOP_RESULTS[name]
        arguments = [self.kinds(part) for part in node.parts[1:]]
        if name == "size":
            self._sized(target, given)
            return RESULTS["size"]
        if name in TEXT_METHODS:
            self._text_method(node, given, arguments)
            return frozenset({TRUTH})
        if name.startswith("get"):
            if given is not None and given.isdisjoint({TIME, SPAN}):
                message = f"asks {self.written(target)}, which is {spoken(given)}, for a part of a date"
                hint = f"timestamp({self.written(target)}).{name}()" if given <= A_TEXT else None
                self.report(node.at, message, hint)
            return frozenset({NUMBER})
        return None

    def _text_method(self, node: Node, given: Kinds, arguments: list[Kinds]) -> None:
        target, name = node.parts[0], node.text
        if given is not None and TEXT not in given and given != {BLANK}:
            only = self.written(node.parts[1]) if len(node.parts) == 2 else None  # noqa: PLR2004 - of and what
            hint = (
                f"{only} in {self.written(target)}" if LIST in given and name == "contains" and only else None
            )
            message = f"calls {name}() on {self.written(target)}, which is {spoken(given)}; it works on text"
            self.report(node.at, message, hint)
        for part, kinds in zip(node.parts[1:], arguments, strict=True):
            if kinds is not None and kinds.isdisjoint(A_TEXT):
                message = f"gives {name}() {self.written(part)}, which is {spoken(kinds)}; it takes text"
                self.report(part.start, message, in_quotes(part))

    def _unary(self, node: Node) -> Kinds:
        (part,) = node.parts
        if node.text == "!":
            self._truth(part)
            return frozenset({TRUTH})
        given = with_value(self.kinds(part))
        if given is not None and given.isdisjoint({NUMBER, SPAN}):
            self.report(node.at, f"has a minus before {self.written(part)}, which is {spoken(given)}")
            return None
        return given

    def _truth(self, node: Node) -> None:
        """Report what stands where only true or false may, and can be neither."""
        given = self.kinds(node)
        if given is not None and TRUTH not in given:
            message = f"takes {self.written(node)}, which is {spoken(given)}, as true or false"
            path = node.path()
            plain = path is not None and path[0] == self.object_type.value and len(path) > 1
            hint = f"has({self.written(node)})" if plain and node.kind is Kind.FIELD else None
            self.report(node.start, message, hint)

    def _choice(self, node: Node) -> Kinds:
        self._truth(node.parts[0])
        one, other = self.kinds(node.parts[1]), self.kinds(node.parts[2])
        return None if one is None or other is None else one | other

    def _binary(self, node: Node) -> Kinds:
        if node.text in {"&&", "||"}:
            for part in node.parts:
                self._truth(part)
            return frozenset({TRUTH})
        left, right = node.parts
        given, other = self.kinds(left), self.kinds(right)
        if node.text == "in":
            self._membership(node, given, other)
            return frozenset({TRUTH})
        if node.text in {"==", "!="}:
            self._equality(node, given, other)
            return frozenset({TRUTH})
        given, other = with_value(given), with_value(other)
        if node.text in {"<", "<=", ">", ">="}:
            self._order(node, given, other)
            return frozenset({TRUTH})
        return self._arithmetic(node, given, other)

    def _equality(self, node: Node, given: Kinds, other: Kinds) -> None:
        left, right = node.parts
        if given is not None and other is not None and given.isdisjoint(other):
            self._mismatch(node, given, other)
        for target, literal in ((left, right), (right, left)):
            self._choices(target, literal, several=False)

    def _order(self, node: Node, given: Kinds, other: Kinds) -> None:
        if given is None or other is None:
            return
        if not given & other & ORDERED:
            self._mismatch(node, given, other)

    def _mismatch(self, node: Node, given: Kinds, other: Kinds) -> None:
        """Report two operands that can never be compared, with what was probably meant."""
        left, right = node.parts
        hint: str | None = None
        for (target, kinds), (value, of_value) in (
            ((left, given), (right, other)),
            ((right, other), (left, given)),
        ):
            what, other_kinds = with_value(kinds) or frozenset(), of_value or frozenset()
            if value.kind is Kind.LITERAL and what == {TEXT} and isinstance(value.value, (int, float)):
                hint = in_quotes(value)
            elif value.kind is Kind.LITERAL and what == {NUMBER} and is_number_text(value.value):
                hint = str(value.value)
            elif what == {LIST} and value.kind is Kind.LITERAL:
                hint = self._asked_of_a_list(node, target, value)
            elif what == {TEXT} and other_kinds == {TIME}:
                hint = f"timestamp({self.written(target)})"
        message = f"compares {self._told(left, given)}, with {self._told(right, other)}"
        self.report(node.at, message, hint)

    def _asked_of_a_list(self, node: Node, target: Node, value: Node) -> str | None:
        """What to ask a list instead of comparing it with one value."""
        if value.value == "":
            relation = "==" if node.text == "==" else ">"
            return f"size({self.written(target)}) {relation} 0"
        within = f"{self.written(value)} in {self.written(target)}"
        return {"==": within, "!=": f"!({within})"}.get(node.text)

    def _told(self, node: Node, kinds: Kinds) -> str:
        return f"{self.written(node)}, which is {spoken(kinds or frozenset())}"

    def _membership(self, node: Node, given: Kinds, within: Kinds) -> None:
        left, right = node.parts
        if within is not None and within.isdisjoint({LIST, MAP}):
            hint = f"{self.written(right)}.contains({self.written(left)})" if within <= A_TEXT else None
            message = f"looks with 'in' into {self.written(right)}, which is {spoken(within)} and not a list"
            self.report(node.at, message, hint)
        elif right.kind is Kind.LIST:
            for item in right.parts:
                kinds = self.kinds(item)
                if given is not None and kinds is not None and given.isdisjoint(kinds):
                    message = f"looks for {self._told(left, given)}, in a list with {self._told(item, kinds)}"
                    self.report(item.start, message, in_quotes(item) if given & A_TEXT else None)
                self._choices(left, item, several=False)
        else:
            self._choices(right, left, several=True)

    def _choices(self, target: Node, literal: Node, *, several: bool) -> None:
        """Warn of a text that is none of a choices field's values."""
        path = target.path()
        name = None if path is None or path[0] != self.object_type.value else custom_field(path)
        if self.schema is None or name is None or literal.kind is not Kind.LITERAL or not literal.value:
            return
        found = self.schema.lookup(name)
        if not isinstance(found, CustomField) or found.choices is None or not isinstance(literal.value, str):
            return
        if found.accepts_multiple_values == several and literal.value not in found.choices:
            message = (
                f"looks for {shown(literal.value)}, which is not one of the choices of {shown(found.name)}"
            )
            self.report(literal.start, message, nearest(literal.value, found.choices), level=Level.WARNING)

    def _arithmetic(self, node: Node, given: Kinds, other: Kinds) -> Kinds:
        if given is None or other is None:
            return None
        allowed = frozenset({NUMBER, SPAN, TIME} | ({TEXT, LIST, BYTES} if node.text == "+" else set()))
        timely = {TIME, SPAN}
        fits = given & other & allowed or (given & timely and other & timely)
        if not fits:
            left, right = node.parts
            message = f"joins {self._told(left, given)}, by '{node.text}' with {self._told(right, other)}"
            self.report(node.at, message)
            return None
        if given <= timely or other <= timely:
            return None
        return A_TEXT if given == {TEXT} else given
