"""What a request asks, read into a Struct: path, query, form fields or JSON, each checked and limited."""

from __future__ import annotations

import functools
import re
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
    except msgspec.ValidationError as error:
        raise AskedWrong(_words(str(error), asks, given)) from None
    except RecursionError:
        raise AskedWrong("expected less in one another") from None


_PLACE = re.compile(r"^(?P<what>.*) - at `\$\.(?P<name>\w+)(?P<index>\[\d+\])?.*`$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<name>\w+)`$")
_MOST_REPEATED = 60


def _words(told: str, asks: type[msgspec.Struct], given: Mapping[str, Any]) -> str:
    """What msgspec says is wrong, for people who have never heard of it."""
    missing = _MISSING.match(told)
    if missing:
        return f"{missing['name']} is missing"
    place = _PLACE.match(told)
    if place is None:
        return told
    document = _schema(asks)
    schema = _resolved(document["$defs"][asks.__name__]["properties"].get(place["name"], {}), document)
    if place["index"]:
        schema = _resolved(schema.get("items", {}), document)
    where, expected = f"{place['name']}{place['index'] or ''}", _expected(schema)
    value = given.get(place["name"])
    if "enum" in schema and isinstance(value, str) and len(value) <= _MOST_REPEATED:
        return f"{where}: {value!r} is not {expected}"
    return f"{where}: expected {expected}" if expected else f"{where}: {place['what']}"


def _expected(schema: Mapping[str, Any]) -> str:
    """What a field takes, in words; "" where its schema says nothing that can be put in words."""
    words = ""
    match schema:
        case {"enum": choices}:
            words = f"one of {', '.join(map(str, choices))}"
        case {"pattern": _, "description": description}:
            words = str(description)
        case {"type": "integer", "minimum": least, "maximum": most}:
            words = f"a whole number from {least} to {most}"
        case {"type": "integer"}:
            words = "a whole number"
        case {"type": "boolean"}:
            words = "true or false"
        case {"type": "array", "minItems": fewest, "maxItems": longest}:
            words = f"a list of {fewest} to {longest}"
        case {"type": "string", "maxLength": longest}:
            words = f"a text of at most {longest} characters"
    return words


@functools.cache
def _schema(asks: type[msgspec.Struct]) -> dict[str, Any]:
    return msgspec.json.schema(asks)


def _resolved(schema: Mapping[str, Any], document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a field that may be left out or is defined elsewhere, what it takes where it is there."""
    kinds = [one for one in schema.get("anyOf", []) if one != {"type": "null"}]
    one = kinds[0] if len(kinds) == 1 else schema
    name = str(one.get("$ref", "")).rpartition("/")[2]
    found: Mapping[str, Any] = document["$defs"][name] if name else one
    return found
