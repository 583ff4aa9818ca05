"""Reading a request's body piece by piece, and no more of it than is allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request


async def read_body(request: Request, *, most: int) -> bytes | None:
    """The raw body; None as soon as it is longer than allowed, whatever its length was said to be.

    Args:
        request: whose body has not been read yet.
        most: bytes.

    Raises:
        starlette.requests.ClientDisconnect: the sender is gone.
    """
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            return None
        chunks.append(chunk)
    return b"".join(chunks)
