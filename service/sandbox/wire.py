"""Requests and replies as the sandbox's endpoints see them: plain values, no framework in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec

if TYPE_CHECKING:
    from service.sandbox.calls import Call

JSON = b"application/json"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


@dataclass(slots=True, kw_only=True)
class Request:
    """One authenticated call.

    Attributes:
        method: upper case.
        path: the whole path.
        object_id: the id in the path, or empty.
        query_string: as received.
        body: as received.
        api_key_id: whose key it was.
        call: the record of an enrichment call; None for other calls.
    """

    method: str
    path: str
    object_id: str = ""
    query_string: bytes = b""
    body: bytes = b""
    api_key_id: str = ""
    call: Call | None = None

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters; of a repeated one the last."""
        return dict(parse_qsl(self.query_string.decode("latin-1"), keep_blank_values=True))

    @property
    def fields(self) -> tuple[str, ...] | None:
        """What `_fields` asks for, or None where it is absent."""
        if b"_fields" not in self.query_string:
            return None
        listed = self.query.get("_fields")
        return None if listed is None else tuple(name for name in listed.split(",") if name)


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer.

    Attributes:
        status: the HTTP status.
        body: the bytes.
        content_type: of the body.
        headers: any more, in lower case.
    """

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


def answer(value: object, *, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Reply:
    """A value as JSON."""
    return Reply(status, _encode(value), headers=headers)


def failure(status: int, message: str) -> Reply:
    """Close's plain error: `{"error": …}`."""
    return answer({"error": message}, status=status)


def invalid(field_errors: dict[str, str] | None = None, *errors: str) -> Reply:
    """Close's 400: `{"errors": […], "field-errors": {…}}`."""
    return answer({"errors": list(errors), "field-errors": field_errors or {}}, status=400)


def missing() -> Reply:
    """Close's 404."""
    return failure(404, "The requested URL was not found on the server.")


def json_object(body: bytes) -> dict[str, Any] | Reply:
    """The body as a JSON object, or the 400 that says it is none."""
    try:
        decoded = _decode(body)
    except (msgspec.DecodeError, RecursionError):
        return invalid(None, "The request body is not valid JSON.")
    return decoded if isinstance(decoded, dict) else invalid(None, "The request body is not a JSON object.")
