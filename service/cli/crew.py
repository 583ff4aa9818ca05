"""Several processes that do the same work at one port, and the supervisor that keeps up their number.

The supervisor has no threads, no event loop and no connections, so its children may be forked from it: they
share what it has imported, and start at once. It does nothing but watch:

- A child that ends is replaced: at once, and after growing pauses while children end soon after they start.
- A child says every second that its event loop runs. One that is silent for half a minute is killed.
- SIGTERM and SIGINT end all in good order; SIGHUP is passed on.
- The line that children speak through closes when the supervisor dies, however it does: then they end, too.

`uvicorn --workers` restarts its children on SIGHUP where ours read their rules anew, restarts without a pause
what cannot live, and leaves its children running when it is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import signal
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from service.hangup import hangup_handler

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import ForkProcess

    from structlog.typing import FilteringBoundLogger

    from service.cli.listening import Port

LOOK_EVERY_SECONDS = 0.1
BEAT_EVERY_SECONDS = 1.0
SILENT_SECONDS = 30.0
SOON_SECONDS = 60.0
"""A child that has lived for so long did not fail by its start."""

LONGEST_PAUSE_SECONDS = 30.0
STOP_SECONDS = 16.0
"""What a child may take to end: uvicorn's 10 s for answers under way, and what is closed then."""

_TOLD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_MUCH = 4096


class Lifeline:
    """A child's end of the line to its supervisor.

    Args:
        line: connected to the supervisor, which never sends anything.
    """

    def __init__(self, line: socket.socket) -> None:
        line.settimeout(0)
        self._line = line

    async def hold(self, *, lost: Callable[[], None]) -> None:
        """Say every second that the event loop runs, until cancelled.

        Args:
            lost: called once, when the supervisor is no more.
        """
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        # it never sends: what there is to read is the end
        loop.add_reader(self._line, gone.set)
        try:
            while not gone.is_set():
                with contextlib.suppress(BlockingIOError):
                    self._line.send(b".")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(BEAT_EVERY_SECONDS):
                        await gone.wait()
        except OSError:
            pass  # the other end is closed
        finally:
            loop.remove_reader(self._line)
        lost()


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a child begins with.

    Attributes:
        sockets: to listen on.
        lifeline: to be held while it works; it is to end in good order when that is lost.
        stands_in: for one that has ended, perhaps long after the supervisor's own start.
    """

    sockets: list[socket.socket]
    lifeline: Lifeline
    stands_in: bool


Work: TypeAlias = "Callable[[Start], None]"
"""What a child does, until SIGTERM or the loss of its lifeline."""


@dataclass(slots=True)
class _Place:
    """One of the children, and the one after it."""

    sockets: list[socket.socket] = field(default_factory=list)
    process: ForkProcess | None = None
    line: socket.socket | None = None
    began_at: float = 0.0
    not_before: float = 0.0
    soon_ended: int = 0
    silent_looks: int = 0

    def close(self) -> None:
        """Close what this process holds of the child."""
        self.close_sockets()
        if self.line is not None:
            self.line.close()

    def close_sockets(self) -> None:
        for one in self.sockets:
            one.close()
        self.sockets = []

    def heard(self) -> bool:
        """Whether the child has said anything since the last look."""
        if self.line is None:
            return False
        try:
            return bool(self.line.recv(_MUCH))
        except OSError:
            return False


class Crew:
    """The children. Made in a process that has no other threads.

    Args:
        count: how many.
        port: where they listen.
        work: what each does.
        log: of the supervisor.
    """

    def __init__(self, *, count: int, port: Port, work: Work, log: FilteringBoundLogger) -> None:
        self._port = port
        self._work = work
        self._log = log
        self._places = [_Place() for _ in range(count)]
        self._context = multiprocessing.get_context("fork")
        self._works = False
        self._stop = False
        self._hung_up = False

    def run(self) -> int:
        """Keep them running until SIGTERM or SIGINT; the exit status of what did not start, or 0."""
        on_hangup = hangup_handler(self._hang_up)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._end())
        signal.signal(signal.SIGHUP, lambda *_: on_hangup())
        # what is there now is never looked at by the collector, so children go on sharing its memory
        gc.collect()
        gc.freeze()
        failed: int | None = None
        try:
            while failed is None and not self._stop:
                for place in self._places:
                    failed = failed or self._look(place)
                self._pass_on_hangup()
                time.sleep(LOOK_EVERY_SECONDS)
        finally:
            self._end_all()
        # told to end while they were starting, they end as if they had failed
        return 0 if self._stop else failed or 0

    def _end(self) -> None:
        self._stop = True

    def _hang_up(self) -> None:
        self._hung_up = True

    def _look(self, place: _Place) -> int | None:
        """See to one place; the exit status of a child that ended before any of them had worked."""
        if place.process is None:
            if time.monotonic() >= place.not_before:
                self._start(place)
            return None
        # before its last words are read, so that none come in between
        code = place.process.exitcode
        if place.heard():
            self._works = True
            place.silent_looks = 0
        else:
            place.silent_looks += 1
        if code is not None:
            return self._ended(place, code)
        # counted in looks of our own: a machine that stood still has not heard anybody
        if place.silent_looks * LOOK_EVERY_SECONDS > SILENT_SECONDS:
            self._log.error("a process does not answer and is killed", process=place.process.pid)
            place.process.kill()
            place.silent_looks = 0
        return None

    def _ended(self, place: _Place, code: int) -> int | None:
        soon = time.monotonic() - place.began_at < SOON_SECONDS
        place.soon_ended = place.soon_ended + 1 if soon else 0
        pause_seconds = pause_after(place.soon_ended)
        facts = {"process": None if place.process is None else place.process.pid, "exit_code": code}
        place.process = None
        if place.line is not None:
            place.line.close()
        if not self._works:
            self._log.error("a process ended before it worked", **facts)
            return code if code > 0 else 1
        place.not_before = time.monotonic() + pause_seconds
        if pause_seconds:
            # nobody would take what the kernel sends here
            place.close_sockets()
        self._log.error("a process ended and is replaced", pause_seconds=pause_seconds, **facts)
        return None

    def _start(self, place: _Place) -> None:
        try:
            place.sockets = place.sockets or self._port.sockets()
            place.process = self._fork(place)
        except OSError as error:
            place.close()
            place.not_before = time.monotonic() + LONGEST_PAUSE_SECONDS
            self._log.error(
                "cannot start a process and tries again",
                error=error.strerror,
                pause_seconds=LONGEST_PAUSE_SECONDS,
            )
        else:
            self._log.info("started a process", process=place.process.pid)

    def _fork(self, place: _Place) -> ForkProcess:
        place.line, far = socket.socketpair()
        with far:
            place.line.settimeout(0)
            place.silent_looks = 0
            start = Start(sockets=place.sockets, lifeline=Lifeline(far), stands_in=place.began_at > 0)
            process = self._context.Process(target=self._live, args=(place, start))
            # until the child has handlers of its own, it would run ours, and forget what it was told
            signal.pthread_sigmask(signal.SIG_BLOCK, _TOLD)
            try:
                process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _TOLD)
        place.began_at = time.monotonic()
        return process

    def _live(self, place: _Place, start: Start) -> None:
        """The life of a child."""
        place.sockets = []
        # whatever of the others' stayed open here would look alive though it is not
        for one in self._places:
            one.close()
        self._port.close()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        # until it can handle it, it would end it
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _TOLD)
        self._work(start)

    def _pass_on_hangup(self) -> None:
        if self._hung_up:
            self._hung_up = False
            for place in self._places:
                if place.process is not None and place.process.pid is not None and place.process.is_alive():
                    os.kill(place.process.pid, signal.SIGHUP)

    def _end_all(self) -> None:
        running = [one.process for one in self._places if one.process is not None]
        self._port.close()
        for place in self._places:
            # else new connections would wait here for nobody while the children finish
            place.close_sockets()
        for process in running:
            process.terminate()
        until = time.monotonic() + STOP_SECONDS
        for process in running:
            process.join(max(0.0, until - time.monotonic()))
            if process.is_alive():
                self._log.warning("a process did not end in time and is killed", process=process.pid)
                process.kill()
                process.join()
        for place in self._places:
            place.close()


def pause_after(soon_ended: int) -> float:
    """Seconds to wait before a child is replaced: 0, 0, 1, 2, 4 and so on, up to half a minute.

    Args:
        soon_ended: how many in a row ended within a minute of their start.
    """
    most = LONGEST_PAUSE_SECONDS
    return 0.0 if soon_ended <= 1 else min(most, 2.0 ** min(soon_ended - 2, 10))
