"""Reading a request's body piece by piece, and no more of it than is allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

if TYPE_CHECKING:
    from starlette.types import Receive


async def read_body(receive: Receive, *, most: int) -> bytes | None:
    """The raw body; None as soon as it is longer than allowed, whatever its length was said to be.

    Args:
        receive: ASGI's, of a request whose body has not been read yet.
        most: bytes.

    Raises:
        starlette.requests.ClientDisconnect: the sender is gone.
    """
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > most:
            return None
        chunks.append(chunk)
        more = message.get("more_body", False)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
