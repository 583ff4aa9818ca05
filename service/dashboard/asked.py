"""What a request asks, read into a Struct: path, query, form fields or JSON, each checked and limited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping


MOST_BODY_BYTES = 64 * 1024
"""Of a form; a JSON body may be as large as a delivery, for an event that is to be explained."""

MOST_FIELDS = 50


class AskedWrong(Exception):  # noqa: N818  an answer 400 for people, no failure of ours
    """What was asked cannot be read; the message says what was expected where."""


def form_fields(body: bytes) -> dict[str, str]:
    """The fields of a urlencoded form; the first of those with one name counts.

    Raises:
        AskedWrong: it is no such form, or has too many fields.
    """
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise AskedWrong(f"expected a urlencoded form of at most {MOST_FIELDS} fields") from None
    return dict(reversed(pairs))


def from_texts(asks: type[msgspec.Struct], *parts: Mapping[str, str]) -> Any:
    """A Struct from texts, as a query or a form has them; what is left blank counts as left out.

    Args:
        asks: what is wanted; texts that it does not name are ignored.
        parts: texts by name; the first part that has a name counts.

    Raises:
        AskedWrong: a text is not what its field takes.
    """
    given = {name: value for part in reversed(parts) for name, value in part.items() if value != ""}
    return _converted(given, asks, strict=False)


def from_json(asks: type[msgspec.Struct], body: bytes, path: Mapping[str, str]) -> Any:
    """A Struct from a JSON object and the path.

    Raises:
        AskedWrong: it is no JSON object, or a value is not what its field takes.
    """
    try:
        given = msgspec.json.decode(body) if body else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise AskedWrong("expected a JSON object") from None
    if not isinstance(given, dict):
        raise AskedWrong("expected a JSON object")
    return _converted({**given, **path}, asks, strict=True)


def _converted(given: dict[str, Any], asks: type[msgspec.Struct], *, strict: bool) -> Any:
    try:
        return msgspec.convert(given, asks, strict=strict)
    except (msgspec.ValidationError, RecursionError) as error:
        # msgspec's messages say what was expected where
        raise AskedWrong(str(error)) from None
