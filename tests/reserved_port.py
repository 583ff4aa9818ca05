"""A port that nobody else gets before it is listened on, and at which nobody answers until then."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A port of 127.0.0.1 that a server may listen on meanwhile.

    It is bound, so the kernel gives it to no one who asks for any, nor to a connection that goes out. It does
    not listen, so whoever sets SO_REUSEADDR, as servers do, may bind it too.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
