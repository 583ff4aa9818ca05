"""What a running stack is made of: processes that always end, and an event loop in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping

Answer = TypeVar("Answer")

PROJECT = Path(__file__).parent.parent
MARK = "STACK_MARK"
INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV")
STOP_SECONDS = 60.0


class HeldPort:
    """A TCP port of 127.0.0.1 that is for our processes alone, also while none of them listens.

    Linux gives a port that is bound to nobody who asks for any, and lets a server that says `SO_REUSEADDR`,
    as ours and Redis do, listen beside a socket that says so too and does not listen. Elsewhere it is only
    free at this moment.
    """

    def __init__(self) -> None:
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._holder.bind(("127.0.0.1", 0))
        self.number = int(self._holder.getsockname()[1])
        if sys.platform != "linux":
            self.close()

    def close(self) -> None:
        self._holder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class Processes:
    """Processes with only the settings they are given, each in a session and with a log of its own."""

    def __init__(self, log_dir: Path, environ: Mapping[str, str]) -> None:
        self.mark = uuid.uuid4().hex
        self.environ = {name: os.environ[name] for name in INHERITED if name in os.environ}
        self.environ |= {**environ, MARK: self.mark}
        self._log_dir = log_dir
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *arguments: str, module: str = "service.cli.main", **settings: Any) -> int:
        """Start `python -m <module> <arguments>` and return its process id."""
        environ = {**self.environ, **{key: str(value) for key, value in settings.items()}}
        with self._log_path(name).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env=environ,
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._running[name] = process
        return process.pid

    def pid(self, name: str) -> int:
        return self._running[name].pid

    def check(self) -> None:
        """Raise RuntimeError, with the log, where a process has ended."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with {process.returncode}:\n{self.log(name)}")

    def send(self, name: str, number: signal.Signals) -> None:
        self._running[name].send_signal(number)

    def wait(self, name: str, *, seconds: float = STOP_SECONDS) -> int:
        """Wait for a process to end; its exit code."""
        return self._running[name].wait(seconds)

    def kill(self, name: str) -> None:
        """Kill it and all of its session, as the end of a machine would."""
        self.send_session(name, signal.SIGKILL)
        self._running[name].wait(STOP_SECONDS)

    def send_session(self, name: str, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._running[name].pid, number)

    def log(self, name: str) -> str:
        """What a process has written so far."""
        path = self._log_path(name)
        return path.read_text(errors="replace") if path.exists() else ""

    def logged(self, name: str, event: str) -> list[dict[str, Any]]:
        """The lines of a JSON log about one kind of event."""
        return [fact for fact in self.facts(name) if fact.get("event") == event]

    def facts(self, name: str) -> list[dict[str, Any]]:
        """All lines of a JSON log, but for one that is just being written."""
        lines = self.log(name).splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]

    def logs(self) -> str:
        return "\n".join(f"--- {name}\n{self.log(name)}" for name in self._running)

    def left(self) -> list[int]:
        """Processes that carry our mark, grandchildren in sessions of their own too; zombies do not count."""
        return marked_processes(self.mark)

    def close(self) -> None:
        for name, process in self._running.items():
            if process.poll() is None:
                self.send_session(name, signal.SIGKILL)
            process.wait(STOP_SECONDS)
        for pid in self.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _log_path(self, name: str) -> Path:
        return self._log_dir / f"{name}.log"


def marked_processes(mark: str) -> list[int]:
    """The ids of processes with this mark in their environment; none where there is no `/proc`."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if wanted in path.read_bytes():
                found.append(int(path.parent.name))
    return found


class Background:
    """An event loop in a thread, for what must go on while a test waits."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="background", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        # on its own thread: the test's may have a loop running, as Playwright has
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(STOP_SECONDS)

    def call(self, function: Callable[[], Answer]) -> Answer:
        async def work() -> Answer:
            return function()

        return self.run(work())

    @contextlib.contextmanager
    def entered(self, context: contextlib.AbstractAsyncContextManager[Answer]) -> Iterator[Answer]:
        """Hold an async context open on the loop; it is entered and left by one task."""
        leave = self.call(asyncio.Event)
        inside: asyncio.Future[Answer] = self.call(self._loop.create_future)

        async def hold() -> None:
            async with context as value:
                inside.set_result(value)
                await leave.wait()

        async def enter() -> Answer:
            done, _ = await asyncio.wait({inside, task}, return_when=asyncio.FIRST_COMPLETED)
            if task in done:
                await task
            return await inside

        task = self.call(lambda: self._loop.create_task(hold()))
        try:
            yield self.run(enter())
        finally:
            self.call(leave.set)
            self.run(asyncio.wait_for(task, STOP_SECONDS))
