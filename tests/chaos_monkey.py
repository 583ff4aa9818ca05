"""What strikes a running stack in the chaos suite: blows planned from a seed, and the hand dealing them."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import signal
import socket
import time
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import httpx
from stack_parts import HeldPort

from service.sandbox.delivery import delivery_body, delivery_headers
from service.sandbox.faults import FaultRule

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from random import Random

    from stack import Stack

ENRICH = "POST enrich_field"
AWAY_MOST_SECONDS = 4.0
FAULTS = ("drop_before", "drop_after", "timeout_after_saved", "garbage", "status:503", "status_after:502")
PAUSES_SECONDS = (0.5, 2.0, 7.0, 33.0)
"""The longest outlasts a lease: the others take over what the paused worker has in hand."""

SKEW_SECONDS = 3600
FORGED_ID = "lead_forged"
KINDS = (
    *("kill web", "kill worker", "kill redis", "stop worker", "pause worker", "pause redis", "pause web"),
    *("cut line", "faults", "forge", "skew"),
)
CLOSE_DOWN = "sandbox down"
CLOSE_DOWN_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """One blow.

    Attributes:
        at_seconds: when, from the beginning.
        kind: one of `KINDS`, or `CLOSE_DOWN`: Close neither answers nor delivers.
        worker: which one, where the kind is about one.
        lasts_seconds: until what was killed is started again, paused goes on, or cut is mended.
        fault: what goes wrong with the next `count` enrichment calls.
        count: of those.
    """

    at_seconds: float
    kind: str
    worker: str
    lasts_seconds: float
    fault: str
    count: int


def strikes_of(
    random: Random, *, seconds: float, number: int, workers: tuple[str, ...], close_down: bool
) -> tuple[Strike, ...]:
    """A plan: each kind at least once, the rest by chance, in the order of time.

    Args:
        random: decides everything.
        seconds: all begin within so many.
        number: how many, at least one of each kind.
        workers: whom it may hit.
        close_down: whether Close itself is down once, beside all that.
    """
    kinds = [*KINDS, *random.choices(KINDS, k=max(0, number - len(KINDS)))]
    strikes = []
    for kind in kinds:
        away_seconds = random.uniform(0.1, AWAY_MOST_SECONDS)
        pause_seconds = random.choice(PAUSES_SECONDS)
        strikes.append(
            Strike(
                at_seconds=random.uniform(0.5, seconds),
                kind=kind,
                worker=random.choice(workers),
                lasts_seconds=pause_seconds if kind == "pause worker" else away_seconds,
                fault=random.choice(FAULTS),
                count=random.randint(1, 3),
            )
        )
    if close_down:
        down = replace(strikes[-1], kind=CLOSE_DOWN, lasts_seconds=CLOSE_DOWN_SECONDS)
        strikes.append(replace(down, at_seconds=random.uniform(0.5, seconds)))
    return tuple(sorted(strikes, key=lambda strike: strike.at_seconds))


class Line:
    """The way to a part, for all that ask it: it can be cut, with all that is on it, and mended."""

    def __init__(self, target: str) -> None:
        self._target = target.removeprefix("http://").split("/")[0].split(":")
        # nobody else gets it while the line is cut
        self._held_port = HeldPort()
        self._listener: socket.socket | None = None
        self._open: set[asyncio.Transport] = set()
        self._carried: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def laid(self) -> AsyncIterator[str]:
        """Carry calls while the context lasts; yields the base URL."""
        await self.mend()
        try:
            yield f"http://127.0.0.1:{self._held_port.number}"
        finally:
            await self.cut()
            self._held_port.close()

    async def mend(self) -> None:
        """Carry calls from now on."""
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self._held_port.number), backlog=1024)
            self._listener.settimeout(0.0)
            asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    async def cut(self) -> None:
        """Refuse connections, and drop those that are open."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        while self._carried:
            for transport in self._open:
                transport.abort()
            await asyncio.wait(self._carried, timeout=0.05)

    def _accept(self, listener: socket.socket) -> None:
        # by hand: a server of asyncio's that is closed forgets, unclosed, what it has just accepted
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, _ = listener.accept()
                task = asyncio.create_task(self._carry(connection))
                self._carried.add(task)
                task.add_done_callback(self._carried.discard)

    async def _carry(self, connection: socket.socket) -> None:
        ends: list[asyncio.Transport] = []
        try:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(sock=connection)
                ends.append(writer.transport)
                self._open.add(writer.transport)
                there, back = await asyncio.open_connection(*self._target)
                ends.append(back.transport)
                self._open.add(back.transport)
                await asyncio.gather(_pump(reader, back), _pump(there, writer))
        finally:
            for transport in ends:
                transport.abort()
                self._open.discard(transport)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65536):
        writer.write(chunk)
        await writer.drain()
    # one side has hung up: nothing that the other one says is heard any more
    raise ConnectionResetError


def sync_always(stack: Stack) -> None:
    """Have Redis answer only after its append-only file is synced.

    One that syncs every second answers before it has written anything while a sync is slow; killed then, it
    forgets what it has answered, and nobody could keep a promise on it.
    """
    stack.redis.config_set("appendfsync", "always")


class Monkey:
    """Deals blows to a stack, and puts right each one when its time is over.

    Args:
        stack: with web and workers running.
        line: from its processes to the sandbox.
        deliveries: from the sandbox to `web`.
        workers: their names.
    """

    def __init__(self, stack: Stack, *, line: Line, deliveries: Line, workers: tuple[str, ...]) -> None:
        self.answers: Counter[int | None] = Counter()
        self._stack = stack
        self._line = line
        self._deliveries = deliveries
        self._workers = workers
        self._later: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._begun = time.monotonic()
        self._back_at = {line: 0.0, deliveries: 0.0}
        self._down: set[str] = set()

    def plan(self, at_seconds: float, action: Callable[[], object]) -> None:
        """Have something done so many seconds after the beginning."""
        heapq.heappush(self._later, (at_seconds, next(self._order), action))

    def act(self) -> float | None:
        """Do what is due; seconds until there is more, None for no more."""
        while self._later:
            wait_seconds = self._later[0][0] - self._now()
            if wait_seconds > 0:
                return wait_seconds
            heapq.heappop(self._later)[2]()
        return None

    def deal(self, strike: Strike) -> None:
        """Deal one blow."""
        deals = {
            "kill web": lambda: self._kill("web", strike),
            "kill worker": lambda: self._kill(strike.worker, strike),
            "kill redis": lambda: self._kill_redis(strike),
            "stop worker": lambda: self._stop(strike),
            "pause web": lambda: self._pause(strike, lambda number: self._send("web", number)),
            "pause worker": lambda: self._pause(strike, lambda number: self._send(strike.worker, number)),
            "pause redis": lambda: self._pause(strike, self._send_redis),
            "cut line": lambda: self._cut(strike, self._line),
            CLOSE_DOWN: lambda: self._cut(strike, self._line, self._deliveries),
            "faults": lambda: self._add_faults(strike),
            "forge": lambda: self._post(skewed=False),
            "skew": lambda: self._post(skewed=True),
        }
        deals[strike.kind]()

    def _now(self) -> float:
        return time.monotonic() - self._begun

    def _after(self, strike: Strike, action: Callable[[], object]) -> None:
        self.plan(self._now() + strike.lasts_seconds, action)

    def _kill(self, name: str, strike: Strike) -> None:
        if name not in self._down:
            self._down.add(name)
            self._stack.processes.kill(name)
            self._after(strike, lambda: self._start(name))

    def _stop(self, strike: Strike) -> None:
        """Have a worker end in good order; it is killed where that takes too long."""
        if strike.worker not in self._down:
            self._down.add(strike.worker)
            self._stack.processes.send(strike.worker, signal.SIGTERM)
            self._after(strike, lambda: self._start(strike.worker))

    def _kill_redis(self, strike: Strike) -> None:
        if self._stack.server.process is not None:
            self._stack.server.kill()
            self._after(strike, self._start_redis)

    def _start_redis(self) -> None:
        self._stack.server.start()
        sync_always(self._stack)

    def _pause(self, strike: Strike, send: Callable[[signal.Signals], None]) -> None:
        send(signal.SIGSTOP)
        self._after(strike, lambda: send(signal.SIGCONT))

    def _cut(self, strike: Strike, *lines: Line) -> None:
        for line in lines:
            self._stack._background.run(line.cut())
            self._back_at[line] = max(self._back_at[line], self._now() + strike.lasts_seconds)
            self._after(strike, partial(self._mend, line))

    def _add_faults(self, strike: Strike) -> None:
        fault = FaultRule(kind=strike.fault, group=ENRICH, count=strike.count)
        self._stack.in_sandbox(lambda world: world.faults.add(fault))

    def _send_redis(self, number: signal.Signals) -> None:
        if self._stack.server.process is not None:
            self._stack.server.process.send_signal(number)

    def _start(self, name: str) -> None:
        self._stack.processes.kill(name)
        self._down.discard(name)
        if name == "web":
            self._stack.start_web()
        else:
            self._stack.start_worker(name)

    def _send(self, name: str, number: signal.Signals) -> None:
        if name not in self._down:
            self._stack.processes.send(name, number)

    def _mend(self, line: Line) -> None:
        if self._now() >= self._back_at[line]:
            self._stack._background.run(line.mend())

    def _post(self, *, skewed: bool) -> None:
        """A delivery that must be refused: signed long ago, or with another key."""
        world = self._stack.world
        (subscription,) = world.subscriptions.values()
        newest = self._stack.in_sandbox(lambda world: next(iter(world.journal.newest_first())).event)
        event = {**newest, "object_id": FORGED_ID}
        key = subscription.signature_key
        body = delivery_body(subscription.id, event)
        headers = delivery_headers(
            signature_key=key if skewed else key[::-1],
            timestamp=int(time.time()) - (SKEW_SECONDS if skewed else 0),
            body=body,
        )
        try:
            with httpx.Client(trust_env=False, timeout=5.0) as client:
                answer = client.post(f"{self._stack.url}/webhooks/close", content=body, headers=headers)
        except httpx.HTTPError:
            self.answers[None] += 1
        else:
            self.answers[answer.status_code] += 1
