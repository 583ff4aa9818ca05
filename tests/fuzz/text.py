"""JSON that a serializer would never write: duplicate keys, literals as they are, endless nesting. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as _quoted
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Node = Any
"""`Members`, a list, `Literal`, or what `json` knows."""

Members = list[tuple[str, Any]]
"""An object's keys and values in order, the same key more than once if need be; see `Object`."""


@dataclass(slots=True)
class Object:
    """A JSON object."""

    members: Members


@dataclass(frozen=True, slots=True)
class Literal:
    """Bytes that stand in the text as they are."""

    raw: bytes


def parsed(body: bytes) -> Node:
    """Read well-formed JSON."""
    return json.loads(body, object_pairs_hook=Object)


def copied(node: Node) -> Node:
    """The same node, to be changed."""
    if isinstance(node, Object):
        return Object([(key, copied(one)) for key, one in node.members])
    return [copied(one) for one in node] if isinstance(node, list) else node


def written(node: Node) -> bytes:
    """Write a node down."""
    pieces: list[bytes] = []
    _write(node, pieces.append)
    return b"".join(pieces)


def _write(node: Node, put: Callable[[bytes], None]) -> None:
    match node:
        case str():
            put(_quoted(node).encode())
        case Literal(raw):
            put(raw)
        case Object(members):
            before = b"{"
            for key, one in members:
                put(before + _quoted(key).encode() + b":")
                _write(one, put)
                before = b","
            put(b"}" if members else b"{}")
        case list():
            before = b"["
            for one in node:
                put(before)
                _write(one, put)
                before = b","
            put(b"]" if node else b"[]")
        case _:
            put(json.dumps(node).encode())
