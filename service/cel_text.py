"""What can be read from a CEL expression's text without running it. Pure.

CEL itself tells syntax errors and the names an expression uses; it does not tell where they stand, which
fields of a variable are read, or what a person meant by `and`. Source of the grammar:
https://github.com/google/cel-spec/blob/master/doc/langdef.md#syntax.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

FUNCTIONS = frozenset(
    {"bytes", "contains", "double", "duration", "dyn", "endsWith", "getDate", "getDayOfMonth",
     "getDayOfWeek", "getDayOfYear", "getFullYear", "getHours", "getMilliseconds", "getMinutes", "getMonth",
     "getSeconds", "int", "matches", "size", "startsWith", "string", "timestamp", "uint"}
)  # fmt: skip
"""The functions that the engine provides."""

LOOPS = frozenset({"all", "exists", "existsOne", "exists_one", "filter", "map"})
"""The macros that bind a variable of their own."""

_TOKEN = re.compile(
    r"""//[^\n]*
    | (?P<text> [bB]?[rR][bB]? (?: \"{3}.*?\"{3} | '{3}.*?'{3} | "[^"\n]*" | '[^'\n]*' )
              | [bB]? (?: \"{3}(?:\\.|[^\\])*?\"{3} | '{3}(?:\\.|[^\\])*?'{3}
                        | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' ) )
    | (?P<name> [A-Za-z_][A-Za-z0-9_]* )
    | [0-9][A-Za-z0-9_]*
    | \S""",
    re.VERBOSE | re.DOTALL,
)
_FIRST_ERROR = re.compile(r"ERROR: <input>:(\d+):(\d+): (?:Syntax error: )?([^\n]*)")
_QUOTED = re.compile(r"'((?:[^']|'(?!$))*)'")
_MEANT = {
    "=": "==", "===": "==", "=~": ".matches(…)", "<>": "!=", "&": "&&", "and": "&&", "|": "||", "or": "||",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Token:
    """One word of an expression: where it starts, its text, and whether it is a name or a quoted text."""

    start: int
    text: str
    kind: str | None


def tokens(source: str) -> tuple[Token, ...]:
    """The expression's words; comments are left out. Any text has tokens, valid or not."""
    found = (Token(match.start(), match[0], match.lastgroup) for match in _TOKEN.finditer(source))
    return tuple(token for token in found if not token.text.startswith("//"))


def position(source: str, offset: int) -> tuple[int, int]:
    """Line and column of a character, both counted from 1."""
    before = source[:offset]
    return before.count("\n") + 1, offset - before.rfind("\n")


def is_root(words: tuple[Token, ...], index: int) -> bool:
    """Whether the word stands for a variable: a name that is neither a field nor a function."""
    if words[index].kind != "name" or (index and words[index - 1].text == "."):
        return False
    return index + 1 == len(words) or words[index + 1].text != "("


def loop_variables(words: tuple[Token, ...]) -> frozenset[str]:
    """The names that `.all(x, …)` and its like bind."""
    return frozenset(
        words[index + 3].text
        for index in range(len(words) - 4)
        if words[index].text == "."
        and words[index + 1].text in LOOPS
        and words[index + 2].text == "("
        and words[index + 3].kind == "name"
        and words[index + 4].text == ","
    )


def path_after(words: tuple[Token, ...], index: int) -> tuple[tuple[Token, ...], int]:
    """The constant fields read from the variable at `index`, and the index of the first word behind them.

    `lead.custom["Industry"].size()` gives the tokens `custom` and `"Industry"`: a method is not a field.
    """
    path: list[Token] = []
    index += 1
    while index + 1 < len(words):
        word, after = words[index], words[index + 1]
        if word.text == "." and after.kind == "name" and not _calls(words, index + 1):
            path.append(after)
            index += 2
        elif (
            word.text == "["
            and after.kind == "text"
            and index + 2 < len(words)
            and words[index + 2].text == "]"
        ):
            path.append(after)
            index += 3
        else:
            break
    return tuple(path), index


def _calls(words: tuple[Token, ...], index: int) -> bool:
    return index + 1 < len(words) and words[index + 1].text == "("


def asks_presence(words: tuple[Token, ...], index: int) -> bool:
    """Whether the variable at `index` is asked what it has: `has(lead.url)`, `"X" in lead.custom`."""
    if index and words[index - 1].text == "in" and words[index - 1].kind == "name":
        path, behind = path_after(words, index)
        following = words[behind].text if behind < len(words) else ""
        return [word.text.strip("'\"") for word in path] in ([], ["custom"]) and following not in {".", "["}
    return index > 1 and words[index - 1].text == "(" and opens_has(words, index - 2)


def opens_has(words: tuple[Token, ...], index: int) -> bool:
    """Whether the word begins a use of the macro `has(…)`."""
    return (
        words[index].text == "has" and _calls(words, index) and (index == 0 or words[index - 1].text != ".")
    )


def replaced(source: str, words: tuple[Token, ...], *, by: Mapping[int, tuple[int, str]]) -> str:
    """The expression with some of its words replaced.

    Args:
        source: the expression.
        words: its tokens.
        by: by the index of the first word to replace, the index behind the last, and the text to put there.
    """
    parts: list[str] = []
    end = 0
    for index, (behind, text) in sorted(by.items()):
        parts += [source[end : words[index].start], text]
        end = words[behind - 1].start + len(words[behind - 1].text)
    return "".join([*parts, source[end:]])


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntaxProblem:
    """The first syntax error of an expression, in words. Line and column are counted from 1."""

    line: int
    column: int
    message: str
    suggestion: str | None = None


_OWN_WORDS = {
    "invalid argument to has() macro": "does not give has() a field by its name, as in has(lead.url); "
    'whether a custom field has a value is asked with "Industry" in lead.custom',
}
"""What the engine says about what many will write, and what we say."""


def syntax_problem(source: str, engine_message: str) -> SyntaxProblem:
    """The engine's syntax error without its long list of what could have come next."""
    match = _FIRST_ERROR.search(engine_message)
    if match is None:
        return SyntaxProblem(line=1, column=1, message="is not a CEL expression")
    line, column, message = max(1, int(match[1])), max(1, int(match[2])), match[3]  # 0 where it does not know
    if "'<EOF>'" in message:
        return SyntaxProblem(line=line, column=column, message="ends where more is expected")
    words = tokens(source)
    offset = sum(len(part) + 1 for part in source.split("\n")[: line - 1]) + column - 1
    index = next((i for i, word in enumerate(words) if word.start + len(word.text) > offset), len(words) - 1)
    if _follows_not(words, index):  # which is reported at `x` of `not x`
        line, column = position(source, words[index - 1].start)
        message = f"has {words[index - 1].text!r} where it is not expected"
        return SyntaxProblem(line=line, column=column, message=message, suggestion="!")
    suggestion = _meant(words, index)
    if message.startswith(("extraneous input", "mismatched input", "token recognition error")):
        quoted = _QUOTED.search(message.partition(" expecting ")[0])
        message = f"has {(quoted[1] if quoted else message).strip()!r} where it is not expected"
    else:
        message = _OWN_WORDS.get(message, f"is not valid: {message}")
    return SyntaxProblem(line=line, column=column, message=message, suggestion=suggestion)


def _meant(words: tuple[Token, ...], index: int) -> str | None:
    """The operator that was meant by the word at `index`, alone or with its neighbours."""
    for before, after in ((2, 0), (1, 0), (0, 1), (0, 0)):
        written = "".join(word.text for word in words[max(0, index - before) : index + after + 1])
        if written.lower() in _MEANT:
            return _MEANT[written.lower()]
    return None


def _follows_not(words: tuple[Token, ...], index: int) -> bool:
    return index > 0 and words[index - 1].kind == "name" and words[index - 1].text.lower() == "not"
