"""Serves the sandbox: as a process of its own, or inside a running event loop for tests and the demo."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.sandbox.app import create_sandbox
from service.sandbox.exchange import DROP_EXTENSION
from service.sandbox.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from service.sandbox.options import SandboxOptions

_BACKLOG = 2048
_FAREWELL_SECONDS = 2.0


class DroppingProtocol(HttpToolsProtocol):
    """HTTP/1.1 that lets the application close a connection without an answer, which ASGI itself cannot."""

    def on_message_begin(self) -> None:
        """Offer to drop the connection, with every request."""
        super().on_message_begin()
        self.scope["extensions"] = {DROP_EXTENSION: {"drop": self.transport.abort}}


class SandboxServer(uvicorn.Server):
    """A uvicorn server that leaves the process's signals alone, starts and stops at once, and says when."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """End `serve`: open connections are cut, as in an outage."""
        self._stop.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening and say so."""
        await super().startup(sockets)
        self.listening.set()

    async def main_loop(self) -> None:
        """Wait for the end, without uvicorn's ten looks a second."""
        await self._stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listeners, cut what is open, end what the application still does."""
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        # Two turns of the loop: for the connections to be lost, then for the tasks that only waited for that.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        tasks = set(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_FAREWELL_SECONDS)
        await self.lifespan.shutdown()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to whoever runs the loop."""
        yield


@contextlib.asynccontextmanager
async def serve_sandbox(world: World, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve a world while the context lasts; yields the base URL, without a slash at its end.

    Args:
        world: what is served; look into it at any time.
        host: the address to listen on.
        port: 0 takes any free one.

    Raises:
        OSError: the address cannot be listened on.
    """
    listener = _listener(host, port)
    shown_host = f"[{host}]" if ":" in host else host
    base_url = f"http://{shown_host}:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        create_sandbox(world),
        http=DroppingProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=75,
    )
    server = SandboxServer(config)
    serving = asyncio.create_task(server.serve([listener]))
    listening = asyncio.create_task(server.listening.wait())
    try:
        await asyncio.wait({serving, listening}, return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            yield base_url
    finally:
        listening.cancel()
        server.stop()
        await serving
        listener.close()


def _listener(host: str, port: int) -> socket.socket:
    # The protocol is named because asyncio turns Nagle's algorithm off only where it is, and connections
    # inherit it from their listener: without, answers wait 40 ms for the client's delayed acknowledgement.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def run_sandbox(
    options: SandboxOptions,
    host: str,
    port: int,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve a new world until SIGINT or SIGTERM.

    Args:
        options: how it behaves.
        host: the address to listen on.
        port: 0 takes any free one.
        ready: told the base URL once calls are answered.

    Raises:
        OSError: the address cannot be listened on.
    """
    import uvloop  # noqa: PLC0415  # absent on Windows, where the rest of this module works

    world = World(
        options=options,
        clock=time.time,
        random=random.Random(),  # noqa: S311  # invented leads and latencies are no secrets
    )

    async def serve() -> None:
        stopped = asyncio.Event()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        async with serve_sandbox(world, host=host, port=port) as base_url:
            if ready is not None:
                ready(base_url)
            await stopped.wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
