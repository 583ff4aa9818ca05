"""Running uvicorn as a command: until it is told to stop, with exit statuses as all commands have them."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, NoReturn

from service.cli.start import give_up

if TYPE_CHECKING:
    import socket

    import uvicorn

EXIT_NOT_STARTED = 1


def cannot_listen(where: str, error: OSError) -> NoReturn:
    """Say that nothing can listen there, and end the command."""
    give_up(f"cannot listen on {where}: {error.strerror}", code=EXIT_NOT_STARTED)


def run_server(server: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
    """Run until SIGTERM or SIGINT.

    Args:
        server: configured, not started.
        sockets: what it listens on; its own host and port when None.

    Raises:
        SystemExit: it could not start.
    """
    # once everything is closed, uvicorn raises the signal that stopped it anew: that is a good end
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets)
    except SystemExit:
        # with a status of uvicorn's own, after it has logged why
        raise SystemExit(EXIT_NOT_STARTED) from None
    if not server.started:
        raise SystemExit(EXIT_NOT_STARTED)
