"""The webhook's answers as HTTP has them: what a head alone is answered, and status, headers and body.

`service.intake` decides about deliveries; `service.delivery_http` takes most of them, and Starlette the rest.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import ClientDisconnect

from service.intake import Answer
from service.request_body import read_body

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import Receive, Scope, Send

    from service.intake import Intake

MOST_LENGTH_DIGITS = 18
"""A longer number in Content-Length is over any limit; Python refuses to read some of them at all."""

_HEADERS_OF_JSON = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))


class Webhook:
    """Takes deliveries; as an ASGI application, any that come as a POST.

    Args:
        intake: answers them.
        max_body_bytes: a longer body is cut off while it streams in, and answered 413.
    """

    def __init__(self, intake: Intake, *, max_body_bytes: int) -> None:
        self._intake = intake
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        answer = await self._answer(scope["headers"], receive)
        headers, body = written(answer)
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def expects_all_of(self, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """Whether the head is no reason to refuse, and says how long a body will come."""
        kind, length = _kind_and_length(headers)
        return length != b"" and self._refusal(kind, length) is None

    async def answer(self, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> Answer:
        """Answer a delivery that has come in whole, and that its head is no reason to refuse."""
        return await self._intake.receive(headers, body)

    async def _answer(self, headers: Sequence[tuple[bytes, bytes]], receive: Receive) -> Answer:
        refusal = self._refusal(*_kind_and_length(headers))
        if refusal is not None:
            return refusal
        try:
            body = await read_body(receive, most=self._max_body_bytes)
        except ClientDisconnect:
            # nobody is left to read it; the sender counts it as failed and delivers again
            return Answer(status=400, body={"error": "the body ended early"})
        return self._too_long() if body is None else await self.answer(headers, body)

    def _refusal(self, kind: bytes, length: bytes) -> Answer | None:
        """The answer to a head without JSON, or with too long a body; None where the body is wanted."""
        if not _is_json(kind):
            return Answer(status=415, body={"error": "expected content-type application/json"})
        return self._too_long() if _announces_over(length, self._max_body_bytes) else None

    def _too_long(self) -> Answer:
        return Answer(status=413, body={"error": f"the body is over {self._max_body_bytes} bytes"})


def written(answer: Answer) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """An answer's headers and body."""
    body = msgspec.json.encode(answer.body)
    headers = [*_HEADERS_OF_JSON, (b"content-length", b"%d" % len(body))]
    if answer.retry_after_seconds is not None:
        headers.append((b"retry-after", b"%d" % answer.retry_after_seconds))
    if answer.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        # the rest of the body is not read
        headers.append((b"connection", b"close"))
    return headers, body


def _kind_and_length(headers: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """Content-Type and Content-Length, which ASGI has in lower case; empty where there is none.

    Of several the first counts; several lengths are refused by the parser.
    """
    kind = length = b""
    for name, value in headers:
        if name == b"content-length":
            length = length or value
        elif name == b"content-type":
            kind = kind or value
    return kind, length


def _is_json(content_type: bytes) -> bool:
    return (
        content_type == b"application/json"
        or content_type.partition(b";")[0].strip().lower() == b"application/json"
    )


def _announces_over(length: bytes, most: int) -> bool:
    """Whether a Content-Length says that the body is longer than allowed; what is said may be wrong."""
    return length.isdigit() and (len(length) > MOST_LENGTH_DIGITS or int(length) > most)
