"""A CEL expression as a tree that remembers where its parts stood. Pure.

The engine checks syntax and evaluates, but shows no tree. This one is made for questions about an expression
that the engine has accepted; what it cannot read gives None, and the question stays unanswered. Source of the
grammar: https://github.com/google/cel-spec/blob/master/doc/langdef.md#syntax.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from service import cel_text
from service.cel_engine import cel

if TYPE_CHECKING:
    from collections.abc import Iterator

DEEPEST = 60
"""Levels of nesting that are read; chains of `&&` and `||` count as one."""

_NUMBER = re.compile(
    r"0[xX][0-9a-fA-F]+[uU]?|[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+(?:[eE][+-]?[0-9]+|[uU])?"
)
_OPERATOR = re.compile(r"&&|\|\||[=!<>]=|\S")
_WORDS = {"true": True, "false": False, "null": None}
_STRENGTH = {
    "||": 1, "&&": 2, "==": 3, "!=": 3, "<": 3, "<=": 3, ">": 3, ">=": 3, "in": 3,
    "+": 4, "-": 4, "*": 5, "/": 5, "%": 5,
}  # fmt: skip
_UNARY_STRENGTH = 6


class Kind(StrEnum):
    """What a node of the tree is."""

    LITERAL = "literal"
    NAME = "name"
    FIELD = "field"
    INDEX = "index"
    CALL = "call"
    METHOD = "method"
    LIST = "list"
    MAP = "map"
    UNARY = "unary"
    BINARY = "binary"
    CHOICE = "choice"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A part of an expression.

    Attributes:
        kind: what it is.
        start: where it starts in the source, counted from 0; `a.b` starts at `a`.
        end: the character behind it.
        at: where to point: at an operator's or a field's own word.
        text: the name, field, function or operator.
        value: of a literal.
        parts: operands in their order; of a field, index or method first what it is taken of.
        depth: levels of nesting below and with it.
    """

    kind: Kind
    start: int
    end: int
    at: int
    text: str = ""
    value: object = None
    parts: tuple[Node, ...] = ()
    depth: int = 1

    def path(self) -> tuple[str, ...] | None:
        """The variable and the constant fields read from it, as in `lead.custom["Industry"]`; else None."""
        if self.kind is Kind.NAME:
            return (self.text,)
        if self.kind is Kind.FIELD:
            step: object = self.text
        elif self.kind is Kind.INDEX and self.parts[1].kind is Kind.LITERAL:
            step = self.parts[1].value
        else:
            return None
        before = self.parts[0].path()
        return None if before is None or not isinstance(step, str) else (*before, step)


def read_expression(source: str) -> Node | None:
    """The tree of an expression that the engine accepts, or None where it is beyond what is read here."""
    try:
        reader = _Reader(source)
        tree = reader.expression()
        reader.take(_END)
    except _Unreadable:
        return None
    return tree


class _Unreadable(Exception):  # noqa: N818 - never leaves this module
    """The expression is beyond what is read here."""


@dataclass(frozen=True, slots=True)
class _Word:
    start: int
    text: str
    kind: str | None = None


_END = ""


def _words(source: str) -> Iterator[_Word]:
    """Words as the grammar has them: numbers and operators whole."""
    behind = 0
    for token in cel_text.tokens(source):
        if token.start < behind:
            continue
        text, kind = token.text, token.kind
        if kind is None:
            pattern, kind = (_NUMBER, "number") if text[0].isdigit() else (_OPERATOR, None)
            match = pattern.match(source, token.start)
            text = match[0] if match else text
        behind = token.start + len(text)
        yield _Word(token.start, text, kind)
    yield _Word(len(source), _END)


class _Reader:
    """Precedence climbing over the words."""

    def __init__(self, source: str) -> None:
        self._words = list(_words(source))
        self._next = 0
        self._open = 0

    def _peek(self) -> _Word:
        return self._words[self._next]

    def take(self, text: str | None = None) -> _Word:
        """The next word, which must be `text` if given."""
        word = self._peek()
        if text is not None and (word.text != text or word.kind == "text"):
            raise _Unreadable
        self._next = min(self._next + 1, len(self._words) - 1)
        return word

    def _takes(self, text: str) -> bool:
        if self._peek().text == text and self._peek().kind != "text":
            self.take()
            return True
        return False

    def _end(self) -> int:
        last = self._words[self._next - 1]
        return last.start + len(last.text)

    def _node(
        self, kind: Kind, *parts: Node, start: int, at: int, text: str = "", value: object = None
    ) -> Node:
        depth = 1 + max((part.depth for part in parts), default=0)
        if depth > DEEPEST:
            raise _Unreadable
        return Node(
            kind=kind, start=start, end=self._end(), at=at, text=text, value=value, parts=parts, depth=depth
        )

    def expression(self) -> Node:
        self._open += 1
        if self._open > DEEPEST:
            raise _Unreadable
        tree = self._operators(1)
        if self._takes("?"):
            wanted = self._operators(1)
            self.take(":")
            tree = self._node(Kind.CHOICE, tree, wanted, self.expression(), start=tree.start, at=tree.start)
        self._open -= 1
        return tree

    def _operators(self, weakest: int) -> Node:
        left = self._unary()
        while (word := self._peek()).kind != "text" and _STRENGTH.get(word.text, 0) >= weakest:
            self.take()
            right = self._operators(_STRENGTH[word.text] + 1)
            chained = word.text in {"&&", "||"} and left.kind is Kind.BINARY and left.text == word.text
            before = left.parts if chained else (left,)
            left = self._node(Kind.BINARY, *before, right, start=left.start, at=word.start, text=word.text)
        return left

    def _unary(self) -> Node:
        signs: list[_Word] = []
        while self._peek().text in {"!", "-"}:
            signs.append(self.take())
        tree = self._postfix(self._primary())
        for sign in reversed(signs):
            if sign.text == "-" and isinstance(tree.value, (int, float)) and not isinstance(tree.value, bool):
                tree = self._node(Kind.LITERAL, start=sign.start, at=sign.start, value=-tree.value)
                continue
            tree = self._node(Kind.UNARY, tree, start=sign.start, at=sign.start, text=sign.text)
        return tree

    def _postfix(self, tree: Node) -> Node:
        while True:
            if self._takes("."):
                word = self.take()
                if word.kind != "name":
                    raise _Unreadable
                if self._takes("("):
                    arguments = self._list(")")
                    tree = self._node(
                        Kind.METHOD, tree, *arguments, start=tree.start, at=word.start, text=word.text
                    )
                else:
                    tree = self._node(Kind.FIELD, tree, start=tree.start, at=word.start, text=word.text)
            elif self._takes("["):
                index = self.expression()
                self.take("]")
                tree = self._node(Kind.INDEX, tree, index, start=tree.start, at=index.start)
            else:
                return tree

    def _primary(self) -> Node:
        word = self.take()
        if word.kind in {"text", "number"} or word.text in _WORDS:
            value = _WORDS[word.text] if word.text in _WORDS else _value(word.text)
            return self._node(Kind.LITERAL, start=word.start, at=word.start, text=word.text, value=value)
        if word.kind == "name":
            if not self._takes("("):
                return self._node(Kind.NAME, start=word.start, at=word.start, text=word.text)
            arguments = self._list(")")
            return self._node(Kind.CALL, *arguments, start=word.start, at=word.start, text=word.text)
        if word.text == "(":
            inner = self.expression()
            self.take(")")
            return inner
        if word.text == "[":
            return self._node(Kind.LIST, *self._list("]"), start=word.start, at=word.start)
        if word.text == "{":
            return self._node(Kind.MAP, *self._entries(), start=word.start, at=word.start)
        raise _Unreadable

    def _list(self, closing: str) -> list[Node]:
        found: list[Node] = []
        while not self._takes(closing):
            found.append(self.expression())
            if not self._takes(","):
                self.take(closing)
                break
        return found

    def _entries(self) -> list[Node]:
        found: list[Node] = []
        while not self._takes("}"):
            found.append(self.expression())
            self.take(":")
            found.append(self.expression())
            if not self._takes(","):
                self.take("}")
                break
        return found


def _value(text: str) -> object:
    """What a number or a quoted text stands for."""
    try:
        return cel.evaluate(text)
    except (ArithmeticError, RuntimeError, ValueError) as error:
        raise _Unreadable from error
