"""A transport that sends together what is written together.

uvicorn writes an answer's head and its body one after the other, and uvloop sends each write at once. That is
two system calls and two packets for an answer of 300 bytes, and as much work again for whoever reads it.
"""

from __future__ import annotations

import asyncio
from typing import Any

MOST_HELD_BYTES = 64 * 1024
"""A longer piece goes out at once: joining it to another would only copy it."""


class JoinedWrites(asyncio.Transport):
    """Passes everything on; what is written waits for the next write, or for the loop's next turn.

    Args:
        transport: the connection's own.
        loop: its event loop.
    """

    __slots__ = ("_held", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: bytes | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send this, with what is held, or hold it."""
        held = self._held
        if held is not None:
            self._held = None
            self._transport.write(held + data)
        elif len(data) > MOST_HELD_BYTES:
            self._transport.write(data)
        else:
            self._held = bytes(data)
            self._loop.call_soon(self._send_held)

    def _send_held(self) -> None:
        held, self._held = self._held, None
        if held is not None and not self._transport.is_closing():
            self._transport.write(held)

    def close(self) -> None:
        """Close once everything is sent."""
        self._send_held()
        self._transport.close()

    def abort(self) -> None:
        """Close at once; what is held is lost."""
        self._held = None
        self._transport.abort()

    def is_closing(self) -> bool:
        """Whether nothing more is read."""
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        """Read nothing for now."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What the connection's own transport knows of it."""
        return self._transport.get_extra_info(name, default)
