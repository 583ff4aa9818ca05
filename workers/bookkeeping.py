"""RQ's bookkeeping for many jobs at a time: its own pipeline hooks, one round trip for a batch.

RQ's stock worker spends about 57 commands in several round trips on each job. The formats here are still
RQ's, written by RQ's own methods, so `rq info` and rq-dashboard show what is going on. Everything in this
module blocks and runs in threads.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rq import worker_registration
from rq.executions import Execution
from rq.job import JobStatus
from rq.serializers import JSONSerializer
from rq.utils import now

from service import jobs, keys
from service.enrichment import ENTRY_VERSION, entry_of_job, job_version
from service.jobs import ALLOWED_FUNCTIONS, EnrichmentJob
from service.ledger import LEASE_MS
from service.redis_text import text
from service.scripts import BlockingScript, script_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from redis import Redis
    from redis.client import Pipeline
    from rq.worker import BaseWorker

EXECUTION_TTL_SECONDS = 90
"""How long RQ believes in an execution without a heartbeat."""

IDLE_WAIT_SECONDS = 1.0
BULK_FULL_WAIT_SECONDS = 0.05
"""The same while bulk jobs may not be taken, as they hold all their places or have just been taken."""
NEWER_WAIT_SECONDS = 0.5
"""The same while live jobs of a newer release are in line, since Redis cannot wait for one behind them."""

NEWER_ENTRY_SECONDS = 5.0
"""When a job is offered again whose entry turned out to be a newer release's."""

MOST_NEWER = 500
"""So many jobs of a newer release are looked past for one that this worker can run."""
TURN_EVERY_SECONDS = 10.0
"""How often so many may be moved to the end of their queue. In between, it is their own workers' turn."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A job in this worker's hands; `error` says why it cannot be run at all."""

    job: EnrichmentJob
    execution: Execution
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What one visit to the queues brought.

    Attributes:
        taken: jobs to run.
        halted: it was not allowed to take anything.
        newer: how many jobs of a newer release it has seen, and left to that.
    """

    taken: tuple[Taken, ...] = ()
    halted: bool = False
    newer: int = 0


class Bookkeeper:
    """Takes jobs from the queues and returns them to RQ when they have ended."""

    def __init__(self, worker: BaseWorker, connection: Redis) -> None:
        self._worker = worker
        self._redis = connection
        self._pop = BlockingScript(connection, script_text("pop", package="workers"))
        self._expected = script_text("start", package="workers")
        self._pop_keys = [keys.HALT]
        for queue in jobs.QUEUES:
            self._pop_keys += [jobs.queue_key(queue), jobs.intermediate_key(queue)]
        self._turn_due_at = 0.0

    def take(self, most: int, *, wait: bool, despite_halt: bool = False, kept_free: int = 0) -> Batch:
        """Take up to `most` jobs, live ones before bulk ones.

        Args:
            most: at least 1.
            wait: where there is none to take, wait for a live job: a second at most.
            despite_halt: take jobs although all calls are halted, for a trial.
            kept_free: how many of the places only live jobs may take.
        """
        turn = time.monotonic() >= self._turn_due_at
        answer = self._pop(
            keys=self._pop_keys,
            args=[most, int(despite_halt), kept_free, ENTRY_VERSION, MOST_NEWER, int(turn)],
        )
        if answer[0] == b"halted":
            return Batch(halted=True)
        _, *ids_of_queues, newer_live, newer_bulk = answer
        if turn and MOST_NEWER in (newer_live, newer_bulk):
            self._turn_due_at = time.monotonic() + TURN_EVERY_SECONDS
        found = [
            (queue, job_id.decode())
            for queue, ids in zip(jobs.QUEUES, ids_of_queues, strict=True)
            for job_id in ids
        ]
        newer = newer_live + newer_bulk
        if not found and wait and newer_live:
            time.sleep(NEWER_WAIT_SECONDS)
        elif not found and wait:
            live = jobs.LIVE_QUEUE
            seconds = IDLE_WAIT_SECONDS if most > kept_free else BULK_FULL_WAIT_SECONDS
            job_id = self._redis.blmove(
                jobs.queue_key(live),
                jobs.intermediate_key(live),
                seconds,  # type: ignore[arg-type]  # Redis takes fractions, which redis-py's types do not know
            )
            if job_id is not None and job_version(text(job_id)) > ENTRY_VERSION:
                self._put_back_first(live, text(job_id))
                newer += 1
            elif job_id is not None:
                found = [(live, text(job_id))]
        return Batch(taken=self._start(found) if found else (), newer=newer)

    def _put_back_first(self, queue: str, job_id: str) -> None:
        """Return what a newer release's worker must have: one that waits gets it at once."""
        with self._redis.pipeline() as pipeline:
            pipeline.lrem(jobs.intermediate_key(queue), 1, job_id)
            pipeline.lpush(jobs.queue_key(queue), job_id)
            pipeline.execute()

    def _start(self, found: Sequence[tuple[str, str]]) -> tuple[Taken, ...]:
        with self._redis.pipeline(transaction=False) as pipeline:
            for _, job_id in found:
                pipeline.hgetall(jobs.job_key(job_id))
            hashes = pipeline.execute()
        taken = []
        with self._redis.pipeline() as pipeline:
            for (queue, job_id), raw in zip(found, hashes, strict=True):
                pipeline.lrem(jobs.intermediate_key(queue), 1, job_id)
                if not raw.get(b"data"):
                    # gone while its id was not, as after a failover: the sweeper finds its entry soon
                    continue
                job, refusal = self._read(job_id, raw)
                job.origin = queue
                execution = Execution.create(
                    job, EXECUTION_TTL_SECONDS, pipeline=pipeline, worker_name=self._worker.name
                )
                job.prepare_for_execution(self._worker.name, pipeline=pipeline)
                taken.append(Taken(job, execution, refusal))
            self._expect([job_id for _, job_id in found], pipeline)
            if taken:
                self._worker.set_state("busy", pipeline=pipeline)
            pipeline.execute()
        return tuple(taken)

    def _expect(self, job_ids: Sequence[str], pipeline: Pipeline) -> None:
        """Let the sweeper look after entries that nobody takes in hand soon: this worker may die before."""
        entries = [entry_of_job(one) for one in job_ids]
        pairs = [part for pair in zip(entries, job_ids, strict=True) for part in pair]
        script_keys = [keys.ACTIVE, *map(keys.entry, entries)]
        # by its text: a Redis that took over in between may not know the digest, and all else would be done
        pipeline.eval(self._expected, len(script_keys), *script_keys, LEASE_MS, *pairs)

    def _read(self, job_id: str, raw: Mapping[bytes, bytes]) -> tuple[EnrichmentJob, str | None]:
        """A job, and why it cannot be run, or None where it can."""
        job = EnrichmentJob(id=job_id, connection=self._redis, serializer=JSONSerializer)
        try:
            job.restore(raw)
            function: Any = job.func_name
        except Exception as error:  # noqa: BLE001  whatever is in Redis must not stop the worker; RQ raises many kinds
            job.failure_ttl = jobs.FAILED_JOB_TTL_SECONDS
            return job, f"the job is not ours to read ({type(error).__name__})"
        if function not in ALLOWED_FUNCTIONS:
            return job, "the job names a function this service does not run"
        return job, None

    def finish(self, done: Iterable[Taken]) -> None:
        """Tell RQ that jobs have ended well: they are counted and leave Redis."""
        with self._redis.pipeline() as pipeline:
            spent = timedelta()
            for one in done:
                one.execution.delete(job=one.job, pipeline=pipeline)
                pipeline.delete(
                    one.job.key,
                    one.job.dependents_key,
                    one.job.dependencies_key,
                    one.job.execution_registry.key,
                )
                self._worker.increment_successful_job_count(pipeline)
                spent += now() - one.execution.created_at
            self._worker.increment_total_working_time(spent, pipeline)
            pipeline.execute()

    def hand_back(self, one: Taken) -> None:
        """Put a job that could not even begin back to the front of its queue."""
        with self._redis.pipeline() as pipeline:
            one.execution.delete(job=one.job, pipeline=pipeline)
            one.job.set_status(JobStatus.QUEUED, pipeline=pipeline)
            pipeline.lpush(jobs.queue_key(one.job.origin), one.job.id)
            pipeline.execute()

    def leave(self, one: Taken) -> None:
        """Put a job back for later whose entry is a newer release's, although its id did not say so."""
        with self._redis.pipeline() as pipeline:
            one.execution.delete(job=one.job, pipeline=pipeline)
            one.job.set_status(JobStatus.SCHEDULED, pipeline=pipeline)
            due = now().timestamp() + NEWER_ENTRY_SECONDS
            pipeline.zadd(jobs.scheduled_key(one.job.origin), {one.job.id: due})
            pipeline.execute()

    def fail(self, one: Taken, explanation: str) -> None:
        """Tell RQ that a job cannot be run: it stays in the registry of failed jobs for a day."""
        one.job.ended_at = now()
        with self._redis.pipeline() as pipeline:
            # written anew, without what could not be read: it would keep RQ from showing the job
            pipeline.delete(one.job.key)
            one.job.set_status(JobStatus.FAILED, pipeline=pipeline)
            one.execution.delete(job=one.job, pipeline=pipeline)
            one.job._handle_failure(explanation, pipeline=pipeline, worker_name=self._worker.name)  # noqa: SLF001  RQ's own finalizer has no public name
            self._worker.increment_failed_job_count(pipeline)
            pipeline.execute()

    def heartbeat(self, held: Sequence[Taken]) -> None:
        """Tell RQ that this worker and what it runs are alive; a Redis that has lost it learns of it anew."""
        known = self._redis.hexists(self._worker.key, "queues")
        with self._redis.pipeline() as pipeline:
            if not known:
                pipeline.hset(self._worker.key, mapping=self._worker.serialize())
                worker_registration.register(self._worker, pipeline)
            self._worker.heartbeat(pipeline=pipeline)
            self._worker.set_state("busy" if held else "idle", pipeline=pipeline)
            for one in held:
                one.execution.heartbeat(one.job.started_job_registry, EXECUTION_TTL_SECONDS, pipeline)
            pipeline.execute()
