"""Whether a condition can ever be true. Pure.

Sound, not complete: what is called impossible is impossible, whatever the record; of everything else nothing
is said. A condition is split into the ways in which it could come true, each a list of comparisons that must
come out one way or the other; it is never true when each way holds two that exclude each other.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from service import cel_text
from service.cel_tree import Kind, Node
from service.record_names import LIST_ATTRIBUTES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

MOST_WAYS = 200
"""Ways to become true that are looked at; a condition with more is not judged."""

_OPPOSITE = {"!=": "==", ">=": "<", "<=": ">"}
_DENIED = {"==": "!=", "!=": "==", "<": ">=", ">": "<=", "<=": ">", ">=": "<"}
_TURNED = {"==": "==", "!=": "!=", "<": ">", ">": "<", "<=": ">=", ">=": "<="}


@dataclass(frozen=True, slots=True, kw_only=True)
class Never:
    """Why a condition is never true.

    Attributes:
        at: the character of the condition to point at.
        first: the one demand as written; empty where the demand is plainly false.
        second: the demand that excludes it; empty where a value from outside does, or nothing is needed.
    """

    at: int
    first: str = ""
    second: str = ""


def never_true(
    tree: Node, source: str, *, outside: Mapping[tuple[str, ...], Collection[str]] | None = None
) -> Never | None:
    """Why the expression is never true, or None where it may be.

    Args:
        tree: the expression.
        source: its text.
        outside: the only values that some paths can have, such as `("event", "action")`.
    """
    try:
        ways = _ways(tree, wanted=True)
    except _TooManyError:
        return None
    if not ways:
        return Never(at=tree.start)
    found: list[Never] = []
    for way in ways:
        reason = _excluded(way, source, outside or {})
        if reason is None:
            return None
        found.append(reason)
    return found[0]


def never_false(tree: Node) -> bool:
    """Whether the expression is plainly true, such as `true`."""
    try:
        return not _ways(tree, wanted=False)
    except _TooManyError:
        return False


class _TooManyError(Exception):
    """There are more ways than are looked at."""


@dataclass(frozen=True, slots=True)
class _Demand:
    """A part of the expression that must come out as wanted."""

    node: Node
    wanted: bool

    def written(self, source: str) -> str:
        text = source[self.node.start : self.node.end]
        if self.wanted:
            return text
        return f"!{text}" if self.node.kind is Kind.CALL else f"!({text})"


_Way = tuple[_Demand, ...]


def _ways(node: Node, *, wanted: bool) -> list[_Way]:
    """The lists of demands of which one must hold for the node to be as wanted; empty where it never is."""
    if node.kind is Kind.LITERAL and isinstance(node.value, bool):
        return [()] if node.value is wanted else []
    if node.kind is Kind.UNARY and node.text == "!":
        return _ways(node.parts[0], wanted=not wanted)
    if node.kind is Kind.CHOICE:
        asked, one, other = node.parts
        return _few(
            [
                *_together([_ways(asked, wanted=True), _ways(one, wanted=wanted)]),
                *_together([_ways(asked, wanted=False), _ways(other, wanted=wanted)]),
            ]
        )
    if node.kind is Kind.BINARY and node.text in {"&&", "||"}:
        parts = [_ways(part, wanted=wanted) for part in node.parts]
        if (node.text == "&&") is wanted:
            return _together(parts)
        return _few(list(itertools.chain.from_iterable(parts)))
    return [(_Demand(node, wanted),)]


def _together(parts: list[list[_Way]]) -> list[_Way]:
    if math.prod(map(len, parts)) > MOST_WAYS:
        raise _TooManyError
    return [tuple(itertools.chain.from_iterable(chosen)) for chosen in itertools.product(*parts)]


def _few(ways: list[_Way]) -> list[_Way]:
    if len(ways) > MOST_WAYS:
        raise _TooManyError
    return ways


@dataclass(slots=True)
class _Room:
    """What a value may still be, as the demands on it are added."""

    only: dict[Any, object] | None = None
    never: set[Any] = field(default_factory=set)
    bounds: list[tuple[str, Any]] = field(default_factory=list)

    def narrow(self, values: Iterable[object]) -> None:
        given = {_key(value): value for value in values}
        if self.only is not None:
            given = {key: value for key, value in self.only.items() if key in given}
        self.only = given

    @property
    def is_empty(self) -> bool:
        if self.only is None:
            return any(not _both(one, other) for one, other in itertools.combinations(self.bounds, 2))
        return not any(
            key not in self.never and all(_within(value, bound) for bound in self.bounds)
            for key, value in self.only.items()
        )


def _excluded(way: _Way, source: str, outside: Mapping[tuple[str, ...], Collection[str]]) -> Never | None:
    """The first two demands of a way that exclude each other."""
    settled: dict[tuple[str, str], _Demand] = {}
    rooms: dict[object, _Room] = {}
    demands: dict[object, list[tuple[_Demand, _Change]]] = {}
    for path, values in outside.items():
        rooms[path] = _Room()
        rooms[path].narrow(values)
    for demand in way:
        word, wanted = _word(demand, source)
        other = settled.setdefault(word, _Demand(demand.node, wanted))
        if other.wanted is not wanted:
            first = next(one for one in way if _word(one, source)[0] == word)
            return Never(at=demand.node.start, first=first.written(source), second=demand.written(source))
        asked = _asked(demand, source)
        if asked is None:
            continue
        subject, change = asked
        room = rooms.setdefault(subject, _Room())
        _apply(room, change)
        if room.is_empty:
            return _clash(demand, change, demands.get(subject, []), source)
        demands.setdefault(subject, []).append((demand, change))
    return None


def _clash(demand: _Demand, change: _Change, before: list[tuple[_Demand, _Change]], source: str) -> Never:
    """The demand, with the one before it that excludes it, or all of them; alone where nothing meets it."""
    own = demand.written(source)
    for one, its_change in before:
        room = _Room()
        _apply(room, its_change)
        _apply(room, change)
        if room.is_empty:
            return Never(at=demand.node.start, first=one.written(source), second=own)
    together = " && ".join(one.written(source) for one, _ in before)
    return Never(at=demand.node.start, first=together or own, second=own if together else "")


@dataclass(frozen=True, slots=True)
class _Change:
    """What a demand says about one value: the relation to `values`."""

    relation: str
    values: tuple[object, ...]


def _apply(room: _Room, change: _Change) -> None:
    if change.relation == "in":
        room.narrow(change.values)
    elif change.relation == "out":
        room.never.update(map(_key, change.values))
    else:
        room.bounds.append((change.relation, change.values[0]))


def _word(demand: _Demand, source: str) -> tuple[tuple[str, str], bool]:
    """A name for the question, the same for `a != b` and `a == b`, and how it must come out."""
    node, wanted = demand.node, demand.wanted
    if node.kind is Kind.BINARY and node.text in _TURNED:
        left, right = (_name(part, source) for part in node.parts)
        relation = node.text
        if relation in _OPPOSITE:
            relation, wanted = _OPPOSITE[relation], not wanted
        return (relation, f"{left} {right}"), wanted
    return ("", _name(node, source)), wanted


def _name(node: Node, source: str) -> str:
    path = node.path()
    if path is not None:
        return repr(path)
    return " ".join(token.text for token in cel_text.tokens(source[node.start : node.end]))


def _asked(demand: _Demand, source: str) -> tuple[object, _Change] | None:
    """The value that a demand is about and what it says of it, where both can be told."""
    node, wanted = demand.node, demand.wanted
    if node.kind is Kind.CALL and node.text == "has" and len(node.parts) == 1:
        path = node.parts[0].path()
        # a list without items is no value either, and reads as a list
        if path is not None and path[-1] not in LIST_ATTRIBUTES:
            return path, _Change("out" if wanted else "in", ("",))
    elif node.kind is Kind.BINARY and node.text == "in":
        left, right = node.parts
        if right.kind is Kind.LIST and all(_is_plain(item) for item in right.parts):
            values = tuple(item.value for item in right.parts)
            return _subject(left, source), _Change("in" if wanted else "out", values)
    elif node.kind is Kind.BINARY and node.text in _TURNED:
        return _compared(node, source, wanted=wanted)
    return None


def _compared(node: Node, source: str, *, wanted: bool) -> tuple[object, _Change] | None:
    """What a comparison with a plain value says of the other side."""
    (left, right), relation = node.parts, node.text
    if _is_plain(left):
        left, right, relation = right, left, _TURNED[relation]
    if _is_plain(left) or not _is_plain(right):
        return None
    relation = relation if wanted else _DENIED[relation]
    relation = {"==": "in", "!=": "out"}.get(relation, relation)
    return _subject(left, source), _Change(relation, (right.value,))


def _subject(node: Node, source: str) -> object:
    return node.path() or _name(node, source)


def _is_plain(node: Node) -> bool:
    return node.kind is Kind.LITERAL and isinstance(node.value, (bool, int, float, str))


def _key(value: object) -> tuple[str, object]:
    """Equal for what CEL takes as equal: 1 and 1.0 are, true and 1 are not."""
    return ("number" if _is_number(value) else type(value).__name__, value)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _comparable(one: object, other: object) -> bool:
    return (_is_number(one) and _is_number(other)) or (type(one) is type(other))


def _within(value: Any, bound: tuple[str, Any]) -> bool:
    relation, limit = bound
    if not _comparable(value, limit):
        return False
    below = relation.startswith("<")
    if value == limit:
        return relation.endswith("=")
    return bool(value < limit) is below


def _both(one: tuple[str, Any], other: tuple[str, Any]) -> bool:
    """Whether some value can be within both bounds."""
    if not _comparable(one[1], other[1]):
        return False
    if one[0][0] == other[0][0]:
        return True
    low, high = (one, other) if one[0].startswith(">") else (other, one)
    if low[1] == high[1]:
        return low[0] == ">=" and high[0] == "<="
    return bool(low[1] < high[1])
