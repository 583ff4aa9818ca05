"""A short way for deliveries: from uvicorn's parser to the webhook, and back in one write.

ASGI takes a request apart into messages and an answer into two more, each checked and awaited. For a delivery
that is as much work as all that we do about it. So what nearly every delivery is, a POST of a known length to
the webhook's path on a connection with nothing else under way, is answered here; whatever is unusual about a
request, uvicorn and Starlette take it as they take any other.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from service.bounded_http import BoundedHttp
from service.settings_values import WEBHOOK_PATH
from service.webhook import written

if TYPE_CHECKING:
    from service.webhook import Webhook

_URL = WEBHOOK_PATH.encode()
_MISTAKE: tuple[list[tuple[bytes, bytes]], bytes] = ([(b"content-length", b"0")], b"")


class DeliveryHttp(BoundedHttp):
    """`BoundedHttp` that answers deliveries itself.

    Args:
        webhook: answers them.
    """

    def __init__(self, *arguments: Any, webhook: Webhook, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._webhook = webhook

    def on_headers_complete(self) -> None:
        """A head has come: see who takes the request."""
        if self._is_usual():
            self.cycle = _Delivery(self, self._webhook)
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body has come."""
        if type(self.cycle) is _Delivery:
            self._idle_bytes = 0
            self.cycle.pieces.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The whole request has come."""
        if type(self.cycle) is _Delivery:
            task = self.loop.create_task(self.cycle.run())
            task.add_done_callback(self.tasks.discard)
            self.tasks.add(task)
        else:
            super().on_message_complete()

    def _is_usual(self) -> bool:
        return (
            self.url == _URL
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and not self.expect_100_continue
            and not self.parser.should_upgrade()
            and (self.cycle is None or self.cycle.response_complete)
            # the parser keeps to the length
            and self._webhook.expects_all_of(self.headers)
        )


class _Nobody:
    """Nobody waits for more of a delivery: work on it begins when it is there whole."""

    def set(self) -> None:
        """Something has come, or the connection is lost."""


class _Delivery(RequestResponseCycle):
    """A delivery under way, with what uvicorn's protocol wants to know of a request.

    Args:
        http: the connection's protocol, when the head has come.
        webhook: answers it.
    """

    message_event = _Nobody()  # type: ignore[assignment]  # uvicorn has an event here

    def __init__(
        self, http: DeliveryHttp, webhook: Webhook
    ) -> None:  # its own: uvicorn's makes what ASGI needs
        self.pieces: list[bytes] = []
        self.keep_alive = http.parser.should_keep_alive()
        self.disconnected = False
        self.response_complete = False
        self._headers = http.headers
        self._http = http
        self._webhook = webhook

    async def run(self) -> None:
        """Answer it."""
        try:
            answer = await self._webhook.answer(self._headers, b"".join(self.pieces))
            status, (headers, body) = answer.status, written(answer)
        except asyncio.CancelledError:
            # the server ends and has waited for long enough; without an answer it is delivered again
            self._http.transport.close()
            raise
        except Exception:
            # a mistake of ours
            self._http.logger.exception("Exception while a delivery was answered")
            self.keep_alive = False
            status, (headers, body) = HTTPStatus.INTERNAL_SERVER_ERROR, _MISTAKE
        if self._http.flow.write_paused and not self.disconnected:
            await self._http.flow.drain()
        self._write(status, headers, body)

    def _write(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        http = self._http
        self.response_complete = True
        if self.disconnected or http.transport.is_closing():
            return
        content = [STATUS_LINE[status]]
        for name, value in (*http.server_state.default_headers, *headers):
            content += (name, b": ", value, b"\r\n")
        if not self.keep_alive:
            content.append(b"connection: close\r\n")
        content += (b"\r\n", body)
        http.transport.write(b"".join(content))
        if not self.keep_alive:
            http.transport.close()
        http.on_response_complete()
