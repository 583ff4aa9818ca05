"""The RQ worker: one process, many calls in flight on one asyncio loop.

RQ's stock worker runs one job at a time in a forked child; an enrichment spends its time waiting for Close,
so here a job is a coroutine. RQ's bookkeeping blocks and runs in two threads (`workers.bookkeeping`): one
takes jobs, one returns them. To RQ it is a worker like any other: `rq info` lists it and its jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker

from service.enrichment import ENTRY_VERSION
from service.jobs import BULK_QUEUE, QUEUES, EnrichmentJob
from service.tasks import cancel_all
from workers.bookkeeping import Batch, Bookkeeper, Taken
from workers.enrich import Went, enrich
from workers.share import kept_for_live

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis import Redis
    from redis.client import PubSubWorkerThread

    from workers.tools import Tools

HEARTBEAT_SECONDS = 5.0
"""A sixth of a lease: five may get lost before another worker takes over."""

RQ_HEARTBEAT_EVERY = 3
WORKER_TTL_SECONDS = 60
"""How long RQ lists a silent worker."""

COMMAND_POLL_SECONDS = 0.5
MOST_TAKEN_AT_ONCE = 32
"""The first of them can begin while more are taken; with a hundred, calls leave and end in waves."""
MOST_FINISHED_AT_ONCE = 100
REDIS_PAUSE_SECONDS = 1.0
REDIS_ANSWER_SECONDS = 10
"""A server that is gone without a word is noticed so soon; nothing here has it wait for over a second."""

HALTED_PAUSE_SECONDS = 1.0
BULK_EVERY_SECONDS = 0.05
"""Bulk jobs are taken a batch at a time; in between, a live one that comes is taken at once."""
PUT_BACK_SECONDS = 5.0
"""How long putting work back may take when the grace is over, before it is left to the sweeper."""
TELL_OF_NEWER_EVERY_SECONDS = 60.0
"""How often it is logged that a newer release's jobs are in line."""


@dataclass(frozen=True, slots=True)
class _Ended:
    taken: Taken
    went: Went


class EnrichmentWorker(BaseWorker):
    """Runs enrichments from the live and the bulk queue, up to `concurrency` at a time.

    Bulk ones never take all places, so that what just happened in Close finds one at once.

    Args:
        connection: for RQ's bookkeeping; a blocking client.
        concurrency: calls in flight at most.
        grace_seconds: how long a stop waits for calls in flight before it puts them back.
        name: unique among workers; RQ makes one up if None.
    """

    def __init__(
        self, *, connection: Redis, concurrency: int, grace_seconds: float, name: str | None = None
    ) -> None:
        super().__init__(
            list(QUEUES),
            name=name,
            connection=connection,
            serializer=JSONSerializer,
            job_class=EnrichmentJob,
            worker_ttl=WORKER_TTL_SECONDS,
            prepare_for_work=True,
        )
        self._concurrency = concurrency
        self._grace_seconds = grace_seconds
        self._books = Bookkeeper(self, connection)
        self._commands: PubSubWorkerThread | None = None
        self._running: dict[asyncio.Task[Went], Taken] = {}
        self._stopping = asyncio.Event()
        self._room = asyncio.Event()
        self._ended: asyncio.Queue[_Ended] = asyncio.Queue()
        self._bulk_due_at = 0.0
        self._tell_of_newer_at = 0.0

    @property
    def connection_timeout(self) -> int:
        """How long Redis may take to answer RQ's bookkeeping, in seconds; RQ's own would be near a minute."""
        return REDIS_ANSWER_SECONDS

    async def serve(self, tools: Tools, *, alongside: Callable[[], list[Awaitable[None]]]) -> None:
        """Work until SIGTERM or SIGINT; then stop taking jobs, wait for those in flight, put back the rest.

        Args:
            tools: what jobs work with.
            alongside: makes the endless coroutines that run beside the jobs, such as housekeeping.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        with ThreadPoolExecutor(1, "take") as taking, ThreadPoolExecutor(1, "finish") as finishing:
            if not await self._begin(tools, taking):
                return
            side = [asyncio.ensure_future(one) for one in alongside()]
            side.append(asyncio.create_task(self._beat(tools)))
            side.append(asyncio.create_task(self._beat_for_rq(tools, finishing)))
            finisher = asyncio.create_task(self._finish_forever(finishing))
            try:
                await self._take_until_stopped(tools, taking)
                await self._drain(tools)
                await self._ended.join()
            finally:
                await cancel_all([*side, finisher])
                with contextlib.suppress(RedisError):
                    await loop.run_in_executor(taking, self.teardown)

    async def _begin(self, tools: Tools, executor: ThreadPoolExecutor) -> bool:
        """Be known to RQ as soon as Redis is there; False where the worker is to stop before that."""
        while not self._stopping.is_set():
            try:
                await asyncio.get_running_loop().run_in_executor(executor, self._be_known)
                await tools.ledger.brakes.try_soon()
            except RedisError as error:
                tools.log.warning("waits for Redis", error=type(error).__name__)
                await self._first_of(asyncio.sleep(REDIS_PAUSE_SECONDS))
            else:
                return True
        return False

    def _be_known(self) -> None:
        """What RQ's workers do at their start; may have been done in part before."""
        self.unsubscribe()
        known = self.connection.hmget(self.key, "pid", "hostname")
        if known == [str(self.pid).encode(), str(self.hostname).encode()]:
            # else RQ would take it for another worker of this name
            self.connection.delete(self.key)
        self.bootstrap(logging_level=None)

    def subscribe(self) -> None:
        """Listen to RQ's commands (`rq.command`), such as a shutdown; looks up twice a second.

        RQ's own listener looks up once a minute, and may hold up the end of the process for as long.
        """
        self.pubsub = self.connection.pubsub()  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
        self.pubsub.subscribe(**{self.pubsub_channel_name: self.handle_payload})
        self._commands = self.pubsub.run_in_thread(
            sleep_time=COMMAND_POLL_SECONDS, daemon=True, exception_handler=self._pubsub_exception_handler
        )

    def unsubscribe(self) -> None:
        """Stop listening; the thread closes its connection itself."""
        if self._commands is not None:
            self._commands.stop()
            self._commands.join(timeout=4 * COMMAND_POLL_SECONDS)

    async def _take_until_stopped(self, tools: Tools, executor: ThreadPoolExecutor) -> None:
        while not self._stopping.is_set():
            free = self._concurrency - len(self._running)
            if free <= 0:
                self._room.clear()
                await self._first_of(self._room.wait())
                continue
            try:
                trial = False
                batch = await self._take(executor, free)
                if batch.halted:
                    trial = await tools.ledger.brakes.may_try()
                    if not trial:
                        await self._first_of(asyncio.sleep(HALTED_PAUSE_SECONDS))
                        continue
                    batch = await self._take(executor, 1, despite_halt=True)
                    if not batch.taken:
                        await tools.ledger.brakes.try_soon()
                        await self._first_of(asyncio.sleep(HALTED_PAUSE_SECONDS))
            except RedisError as error:
                tools.log.warning("waits for Redis", error=type(error).__name__)
                await self._first_of(asyncio.sleep(REDIS_PAUSE_SECONDS))
                continue
            if batch.newer:
                self._tell_of_newer(tools, seen=batch.newer)
            for one in batch.taken:
                if self._stopping.is_set():
                    self._ended.put_nowait(_Ended(one, Went.REFUSED))
                else:
                    self._start(one, tools, trial=trial)

    async def _take(self, executor: ThreadPoolExecutor, free: int, *, despite_halt: bool = False) -> Batch:
        loop = asyncio.get_running_loop()
        most = min(free, MOST_TAKEN_AT_ONCE)
        kept_free = max(0, kept_for_live(self._concurrency) - (free - most))
        if despite_halt:
            kept_free = 0  # a trial is one call, whichever it is
        elif loop.time() < self._bulk_due_at:
            kept_free = most
        batch = await loop.run_in_executor(
            executor,
            lambda: self._books.take(
                most, wait=not despite_halt, despite_halt=despite_halt, kept_free=kept_free
            ),
        )
        if any(one.job.origin == BULK_QUEUE for one in batch.taken):
            self._bulk_due_at = loop.time() + BULK_EVERY_SECONDS
        return batch

    async def _first_of(self, other: Awaitable[Any]) -> None:
        """Wait for something, or for the stop, whichever comes first."""
        tasks = [asyncio.ensure_future(other), asyncio.create_task(self._stopping.wait())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()

    def _start(self, one: Taken, tools: Tools, *, trial: bool) -> None:
        task = asyncio.create_task(self._run(one, tools, trial=trial))
        self._running[task] = one
        task.add_done_callback(self._forget)

    def _tell_of_newer(self, tools: Tools, *, seen: int) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._tell_of_newer_at:
            self._tell_of_newer_at = now + TELL_OF_NEWER_EVERY_SECONDS
            tools.log.warning("left to workers of a newer release", seen=seen, own_version=ENTRY_VERSION)

    def _forget(self, task: asyncio.Task[Went]) -> None:
        one = self._running.pop(task)
        # a cancelled one has put its enrichment back or lost it: its job, handed back, finds nothing to do
        went = Went.REFUSED if task.cancelled() else task.result()
        self._ended.put_nowait(_Ended(one, went))
        self._room.set()

    async def _run(self, one: Taken, tools: Tools, *, trial: bool) -> Went:
        if one.error is not None:
            tools.log.warning("a job that is not ours is not run", job=one.job.id, why=one.error)
            return Went.THROUGH
        holder = f"{tools.worker}/{one.execution.id}"
        try:
            went = await enrich(one.job.id, tools, holder=holder, trial=trial)
        except Exception:
            tools.log.exception("job failed; the sweeper will find its entry", job=one.job.id)
            return Went.THROUGH
        if went is Went.NEWER:
            self._tell_of_newer(tools, seen=1)
        return went

    async def _finish_forever(self, executor: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            done = [await self._ended.get()]
            while len(done) < MOST_FINISHED_AT_ONCE and not self._ended.empty():
                done.append(self._ended.get_nowait())
            while True:
                try:
                    await loop.run_in_executor(executor, self._finish, done)
                    break
                except RedisError:
                    if self._stopping.is_set():
                        break
                    await asyncio.sleep(REDIS_PAUSE_SECONDS)
            for _ in done:
                self._ended.task_done()

    def _finish(self, done: list[_Ended]) -> None:
        through = [one for one in done if one.went is Went.THROUGH]
        self._books.finish([one.taken for one in through if one.taken.error is None])
        for one in done:
            if one.taken.error is not None:
                self._books.fail(one.taken, one.taken.error)
            elif one.went is Went.REFUSED:
                self._books.hand_back(one.taken)
            elif one.went is Went.NEWER:
                self._books.leave(one.taken)

    async def _beat(self, tools: Tools) -> None:
        """Keep leases alive, whatever RQ's bookkeeping waits for; let go of what others have taken over."""
        while True:
            try:
                held_fences = dict(tools.hands.fences)
                for lost in await tools.ledger.heartbeat(held_fences):
                    # it may have come back meanwhile, under a newer fence
                    if tools.hands.fences.get(lost) == held_fences[lost]:
                        tools.hands.tasks[lost].cancel()
            except RedisError as error:
                tools.log.warning("heartbeat waits for Redis", error=type(error).__name__)
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _beat_for_rq(self, tools: Tools, executor: ThreadPoolExecutor) -> None:
        """Keep RQ's view of this worker alive."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                await loop.run_in_executor(executor, self._books.heartbeat, list(self._running.values()))
            except RedisError as error:
                tools.log.warning("heartbeat for RQ waits for Redis", error=type(error).__name__)
            await asyncio.sleep(HEARTBEAT_SECONDS * RQ_HEARTBEAT_EVERY)

    async def _drain(self, tools: Tools) -> None:
        tools.log.info("stopping", in_flight=len(self._running), grace_seconds=self._grace_seconds)
        if self._running:
            await asyncio.wait(list(self._running), timeout=self._grace_seconds)
        await cancel_all(list(self._running), again_seconds=PUT_BACK_SECONDS)
