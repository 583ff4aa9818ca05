"""What is wrong with a configuration file, told so that the place is found and the fix is near. Pure."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_WIDEST_EXCERPT = 100
_LONGEST_VALUE = 60


class Level(StrEnum):
    """Whether the file can be used in spite of a problem."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing to change in a file.

    Attributes:
        line: counted from 1, by the line breaks of YAML.
        column: counted from 1, in characters.
        path: where in the document: `rules[1].mode`; empty for the file as a whole.
        value: what stands there as written, shortened; None where nothing does.
        message: what is wrong and what was expected.
        suggestion: the nearest right thing, or None.
        source: the file's name.
        source_line: the line as it stands in the file.
        level: an error keeps the file from being used.
    """

    line: int
    column: int
    path: str
    value: str | None
    message: str
    suggestion: str | None
    source: str
    source_line: str
    level: Level = Level.ERROR

    def render(self) -> str:
        """The problem on one line, then the file's line with a caret under the place."""
        where = f"{self.source}:{self.line}:{self.column}: "
        level = "warning: " if self.level is Level.WARNING else ""
        path = f"{self.path}: " if self.path else ""
        hint = f"; did you mean '{self.suggestion}'?" if self.suggestion else ""
        head = printable(f"{where}{level}{path}{self.message}{hint}")
        start = (
            max(0, self.column - 1 - _WIDEST_EXCERPT // 2) if len(self.source_line) > _WIDEST_EXCERPT else 0
        )
        excerpt = printable(self.source_line[start : start + _WIDEST_EXCERPT])
        return f"{head}\n    {excerpt}\n    {' ' * (self.column - 1 - start)}^"


def printable(text: str) -> str:
    """The text with whatever could move a terminal's cursor or not be encoded replaced, one for one."""
    return "".join(
        char if char.isprintable() else " " if char.isspace() else "\N{REPLACEMENT CHARACTER}"
        for char in text
    )


def shown(value: str) -> str:
    """A value in quotes, shortened to what fits a message."""
    return f"'{value}'" if len(value) <= _LONGEST_VALUE else f"'{value[: _LONGEST_VALUE - 1]}…'"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` most likely stands for, or None when none comes close."""
    return next(iter(nearest_names(name, known, most=1)), None)


def nearest_names(name: str, known: Iterable[str], *, most: int = 3) -> tuple[str, ...]:
    """Up to `most` known names in order of likeness, whatever their case."""
    by_folded: dict[str, str] = {}
    for candidate in known:
        by_folded.setdefault(candidate.casefold(), candidate)
    close = difflib.get_close_matches(name.casefold(), sorted(by_folded), n=most, cutoff=0.6)
    return tuple(by_folded[folded] for folded in close)


def lines_of(text: str) -> list[str]:
    """The text's lines as YAML counts them, without their breaks."""
    return _LINE_BREAK.split(text)
