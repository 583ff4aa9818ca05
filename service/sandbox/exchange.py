"""A request's way back: to answer it, or to go wrong as a fault demands."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from service.sandbox.limits import decimal_seconds
from service.sandbox.wire import Reply, failure

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from service.sandbox.faults import FaultRule

DROP_EXTENSION = "close_enrich.drop"
"""The ASGI extension by which the server offers to close a connection without an answer."""

HUGE_BYTES = 16 * 1024 * 1024
_HUGE_CHUNK = b" " * 65536


class Exchange:
    """One request's way back: to answer it, or not to."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, headers: tuple[tuple[bytes, bytes], ...]
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._headers = headers

    async def reply(self, reply: Reply) -> None:
        """Answer."""
        await send_reply(self._send, reply, self._headers)

    async def play(self, fault: FaultRule, reply: Reply | None) -> int | None:
        """Do what the fault demands in place of the reply; the status answered, None for none."""
        if fault.name in ("drop_before", "drop_after"):
            await self._drop()
            return None
        if fault.name == "timeout_after_saved":
            await self._hang_up()
            return None
        if fault.name == "huge":
            await self._send_huge(reply)
            return 200
        broken = _broken(fault)
        await send_reply(self._send, broken, self._fault_headers(fault, broken.status))
        return broken.status

    def _fault_headers(self, fault: FaultRule, status: int) -> tuple[tuple[bytes, bytes], ...]:
        seconds = fault.retry_after_seconds
        if status == 429:  # noqa: PLR2004  # Too Many Requests
            # Close sends both with every 429, whatever the bucket says.
            seconds = 1.0 if seconds is None else seconds
            limit = f"limit=1, remaining=0, reset={decimal_seconds(seconds)}".encode()
            return (b"ratelimit", limit), (b"retry-after", b"%d" % math.ceil(seconds))
        if seconds is None:
            return self._headers
        return (*self._headers, (b"retry-after", b"%d" % math.ceil(seconds)))

    async def _drop(self) -> None:
        extension = (self._scope.get("extensions") or {}).get(DROP_EXTENSION)
        if extension is None:
            raise RuntimeError(
                "this server cannot drop connections; serve the sandbox by service.sandbox.server"
            )
        extension["drop"]()
        await self._hang_up()

    async def _hang_up(self) -> None:
        """Say nothing until the connection is gone."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _send_huge(self, reply: Reply | None) -> None:
        headers = [(b"content-type", b"application/json"), *self._headers]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(HUGE_BYTES // len(_HUGE_CHUNK)):
            await self._send({"type": "http.response.body", "body": _HUGE_CHUNK, "more_body": True})
        await self._send({"type": "http.response.body", "body": b"{}" if reply is None else reply.body})


def _broken(fault: FaultRule) -> Reply:
    if fault.name == "garbage":
        return Reply(200, b'{"value": "Indus')
    if fault.name == "html":
        return Reply(200, b"<!doctype html><title>Please sign in</title>", b"text/html; charset=utf-8")
    if fault.name == "redirect":
        return Reply(302, b"", b"text/html; charset=utf-8", ((b"location", b"/elsewhere/"),))
    status = int(fault.number)
    return failure(status, "Played by the sandbox.")


async def send_reply(send: Send, reply: Reply, headers: tuple[tuple[bytes, bytes], ...]) -> None:
    """Send one reply.

    Args:
        send: ASGI's.
        reply: what to send.
        headers: sent beside the reply's own.
    """
    start: dict[str, Any] = {
        "type": "http.response.start",
        "status": reply.status,
        "headers": [
            (b"content-type", reply.content_type),
            (b"content-length", b"%d" % len(reply.body)),
            *headers,
            *reply.headers,
        ],
    }
    await send(start)
    await send({"type": "http.response.body", "body": reply.body})
