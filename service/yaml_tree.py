"""YAML text as plain values that remember where they stood. Pure.

Stricter than YAML: UTF-8, one document, keys that are text and stand once, no nulls, no tags beyond YAML's
own, and limits on size, depth and what aliases expand to. Whatever the text, the answer is values, problems,
or both; nothing is raised.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml
from yaml.constructor import SafeConstructor
from yaml.reader import ReaderError

from service.problem import Level, Problem, lines_of, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

Path: TypeAlias = tuple[str | int, ...]

LARGEST_FILE_BYTES = 256 * 1024
MOST_VALUES = 20_000
DEEPEST = 20

_TAG = "tag:yaml.org,2002:"
_AT_THE_END = re.compile("(but got|but found) '<stream end>'|unexpected end of stream")
_TEXT_TAGS = {_TAG + "str", _TAG + "timestamp", _TAG + "value", _TAG + "merge"}
_KNOWN_TAGS = {_TAG + name for name in ("bool", "float", "int", "map", "null", "seq")} | _TEXT_TAGS


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a value or key starts, counted from 1, and its text as written where it is a scalar."""

    line: int
    column: int
    raw: str | None = None
    style: str | None = None


@dataclass(slots=True, kw_only=True)
class Tree:
    """A document's values and where each stood. Filled by `read_tree`, then only read.

    Attributes:
        source: the file's name.
        lines: the file's lines.
        data: plain dicts, lists and scalars; None where the text is no YAML at all.
        values: the place of each value by its path.
        keys: the place of each key by the path of its value.
        problems: what was wrong with the text as YAML; the values concerned are left out.
    """

    source: str
    lines: Sequence[str]
    data: Any = None
    values: dict[Path, Place] = field(default_factory=dict)
    keys: dict[Path, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place(self, path: Path) -> Place:
        """Where the value stands, or the nearest thing around it that exists."""
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, Place(line=1, column=1))

    def inside(self, path: Path, *, line: int, column: int) -> Place:
        """Where a character of a text value stands in the file, or the value's start where escapes hide it.

        Args:
            path: of the text.
            line: within the text, counted from 1.
            column: within that line, counted from 1.
        """
        start = self.place(path)
        wanted = (start.raw or "").split("\n")[line - 1 : line]
        row = start.line - 1 + (line if start.style == "|" else line - 1)
        offset = self.lines[row].find(wanted[0]) if wanted and wanted[0] and row < len(self.lines) else -1
        return start if offset < 0 else Place(line=row + 1, column=offset + column)

    def problem(
        self,
        path: Path,
        message: str,
        *,
        suggestion: str | None = None,
        level: Level = Level.ERROR,
        at: Place | None = None,
    ) -> Problem:
        """A problem with the value at `path`, pointing there or at `at`."""
        place = at or self.place(path)
        return Problem(
            line=place.line,
            column=place.column,
            path=written_path(path),
            value=None if path not in self.values else self.values[path].raw,
            message=message,
            suggestion=suggestion,
            source=self.source,
            source_line=self.lines[min(place.line, len(self.lines)) - 1],
            level=level,
        )


def written_path(path: Path) -> str:
    """A path as people write it: `rules[1].mode`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def read_tree(text: str | bytes, *, source: str) -> Tree:
    """Read YAML from text, or from a file's bytes."""
    tree = Tree(source=source, lines=lines_of(_decoded(text)))
    problem = _unreadable(tree, text)
    if problem is not None:
        tree.problems.append(problem)
        return tree
    try:
        loader = yaml.SafeLoader(_decoded(text).removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}"))
    except ReaderError as error:
        at = _place_at(_decoded(text), error.position)
        tree.problems.append(tree.problem((), f"holds the control character U+{error.character:04X}", at=at))
        return tree
    try:
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        tree.problems.append(_syntax_problem(tree, error))
    except RecursionError:
        tree.problems.append(tree.problem((), "is nested too deeply"))
    except (OverflowError, ValueError):
        mark = loader.get_mark()
        at = Place(line=mark.line + 1, column=mark.column + 1)
        tree.problems.append(tree.problem((), "is not valid YAML: an escape names no character", at=at))
    else:
        if root is None:
            tree.problems.append(tree.problem((), "is empty"))
        else:
            tree.data = _Reading(tree=tree).value(root, ())
    finally:
        loader.dispose()
    return tree


def _decoded(text: str | bytes) -> str:
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else text


def _unreadable(tree: Tree, text: str | bytes) -> Problem | None:
    """Why the text cannot even be looked at as YAML."""
    if len(text) > LARGEST_FILE_BYTES:
        return tree.problem(
            (), f"is larger than {LARGEST_FILE_BYTES // 1024} KiB", at=Place(line=1, column=1)
        )
    if isinstance(text, bytes):
        try:
            text.decode("utf-8")
        except UnicodeDecodeError as error:
            at = _place_at(text[: error.start].decode("utf-8"), error.start)
            return tree.problem((), "is not UTF-8 text", at=at)
    return None


def _place_at(text: str, offset: int) -> Place:
    before = lines_of(text[:offset])
    return Place(line=len(before), column=len(before[-1]) + 1)


def _syntax_problem(tree: Tree, error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    never_closed = error.context_mark is not None and _AT_THE_END.search(str(error.problem)) is not None
    if never_closed:
        mark = error.context_mark
    at = Place(line=1, column=1) if mark is None else Place(line=mark.line + 1, column=mark.column + 1)
    what = str(error.problem or error.context)
    if never_closed:
        what = "what begins here is never closed"
    elif "'\\t'" in what:
        what = "a tab stands where only spaces may; indent with spaces"
    elif what == "but found another document":
        what = "a second document begins; keep everything in one"
    elif what == "mapping values are not allowed here":
        what = "': ' may not stand within an unquoted value; put the value in quotes"
    return tree.problem((), f"is not valid YAML: {what}", at=at)


@dataclass(slots=True, kw_only=True)
class _Reading:
    """One walk over the nodes, with what must be known on the way."""

    tree: Tree
    seen: int = 0
    open_nodes: list[int] = field(default_factory=list)

    def value(self, node: yaml.Node, path: Path) -> object:
        """The node's plain value; None, with a problem reported, where it has none."""
        self.seen += 1
        raw = node.value if isinstance(node, yaml.ScalarNode) else None
        self.tree.values[path] = _place(node, raw)
        refusal = self._refusal(node)
        if refusal is not None:
            self._report(path, refusal)
            return None
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if self.seen > MOST_VALUES:
            return None
        self.open_nodes.append(id(node))
        plain = self._mapping(node, path) if isinstance(node, yaml.MappingNode) else self._list(node, path)
        self.open_nodes.pop()
        return plain

    def _refusal(self, node: yaml.Node) -> str | None:
        if node.tag not in _KNOWN_TAGS:
            return f"has the tag {shown(node.tag.replace(_TAG, '!!'))}, but only plain values are read"
        if id(node) in self.open_nodes:
            return "contains itself through an alias"
        if len(self.open_nodes) >= DEEPEST:
            return "is nested too deeply"
        if self.seen == MOST_VALUES + 1:
            return f"is beyond the {MOST_VALUES} values that are read; aliases count each time"
        return None

    def _report(self, path: Path, message: str) -> None:
        self.tree.problems.append(self.tree.problem(path, message))

    def _list(self, node: yaml.Node, path: Path) -> list[object]:
        return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, object]:
        plain: dict[str, object] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                at = _place(key_node, None)
                self.tree.problems.append(self.tree.problem(path, "has a key that is not text", at=at))
                continue
            key = key_node.value
            if (*path, key) in self.tree.keys:
                first = self.tree.keys[*path, key].line
                message = f"stands twice; it is already on line {first}"
                self.tree.problems.append(self.tree.problem((*path, key), message, at=_place(key_node, key)))
                continue
            self.tree.keys[*path, key] = _place(key_node, key)
            value = self.value(value_node, (*path, key))
            if value is not None:
                plain[key] = value
        return plain

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> object:
        raw = str(node.value)
        if any("\ud800" <= char <= "\udfff" for char in raw):
            self._report(path, "holds half a character (a lone surrogate)")
            return None
        if node.tag in _TEXT_TAGS:
            return raw
        if node.tag == _TAG + "null":
            self._report(path, "has no value; give it one or leave the key out")
            return None
        constructor = SafeConstructor()
        try:
            if node.tag == _TAG + "bool":
                return constructor.construct_yaml_bool(node)
            number = (
                constructor.construct_yaml_int
                if node.tag == _TAG + "int"
                else constructor.construct_yaml_float
            )
            return number(node)
        except (ValueError, LookupError):
            return raw  # an explicit tag on something else, or more digits than a number may have


def _place(node: yaml.Node, raw: str | None) -> Place:
    style = node.style if isinstance(node, yaml.ScalarNode) else None
    return Place(line=node.start_mark.line + 1, column=node.start_mark.column + 1, raw=raw, style=style)
