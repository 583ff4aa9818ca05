"""Reads the body of Close's replies. Pure, and never raises, whatever the bytes are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from workers.reply import Reply

MOST_CHARS = 300


def json_object(reply: Reply) -> dict[str, Any] | str:
    """The JSON object in a reply's body, or a sentence on why there is none.

    Of keys that occur twice the last one counts. A missing content type is taken for JSON.
    """
    media_type = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    if reply.truncated:
        return "Close's answer was too long to be read"
    if media_type not in {"", "application/json"} and not media_type.endswith("+json"):
        return "Close's answer was not JSON"
    try:
        decoded = msgspec.json.decode(reply.body)
    # Invalid UTF-8 and msgspec's errors are ValueErrors; RecursionError is a body nested too deeply.
    except (ValueError, RecursionError):
        return "Close's answer was not readable JSON"
    return decoded if isinstance(decoded, dict) else "Close's answer was not a JSON object"


def error_messages(reply: Reply) -> list[str]:
    """What Close's error body says: `{"error": …}`, or `{"errors": […], "field-errors": {name: …}}`."""
    body = json_object(reply)
    if isinstance(body, str):
        return []
    messages = [*_texts(body.get("error")), *_texts(body.get("errors"))]
    field_errors = body.get("field-errors")
    if isinstance(field_errors, dict):
        messages += [f"{name}: {text}" for name, found in field_errors.items() for text in _texts(found)]
    return messages


def one_line(text: str) -> str:
    """`text` on one line, without control characters, at most `MOST_CHARS` long."""
    # A bound, because a body may be a megabyte; with slack, because what is removed makes room.
    start = text[: 4 * MOST_CHARS]
    plain = " ".join("".join(char if char.isprintable() else " " for char in start).split())
    return plain if len(plain) <= MOST_CHARS else plain[: MOST_CHARS - 1] + "…"


def _texts(found: object) -> list[str]:
    candidates = found if isinstance(found, list) else [found]
    return [text for text in candidates if isinstance(text, str) and text]
