"""How an enrichment looks to RQ: queues, job format, and which functions a job may name.

A job carries no arguments: its id names the ledger entry (`service.enrichment.entry_of_job`), so every job
hash is the same template, made by RQ's own `Job.to_dict()`, and stays small.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from rq import Queue
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job
from rq.registry import ScheduledJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.utils import now

from service.enrichment import USUAL_QUEUE

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis import Redis

LIVE_QUEUE = USUAL_QUEUE
"""What just happened in Close."""
BULK_QUEUE = "enrich-bulk"
"""What can wait: low priority rules, backfill, reconciliation."""
QUEUES = (LIVE_QUEUE, BULK_QUEUE)

JOB_FUNCTION = "workers.job.run"
ALLOWED_FUNCTIONS = frozenset({JOB_FUNCTION})
"""The only functions a job may name; anything else in Redis is data, never code to run."""

JOB_TIMEOUT_SECONDS = 1800
FAILED_JOB_TTL_SECONDS = 24 * 3600

ALL_QUEUES_KEY: str = Queue.redis_queues_keys


class FunctionNotAllowedError(Exception):
    """A job names a function that is not ours; raised instead of importing it."""


class EnrichmentJob(Job):
    """An RQ job that refuses to run anything but the named functions."""

    @property
    def func(self) -> Callable[..., Any]:
        """The function to run.

        Raises:
            FunctionNotAllowedError: the job names any other function.
        """
        if self.func_name not in ALLOWED_FUNCTIONS:
            raise FunctionNotAllowedError("a job names a function this service does not run")
        return cast("Callable[..., Any]", super().func)

    @cached_property
    def started_job_registry(self) -> StartedJobRegistry:
        """RQ's registry of executions, made once for a job: to make it takes longer than to use it."""
        return StartedJobRegistry(
            self.origin, connection=self.connection, job_class=EnrichmentJob, serializer=JSONSerializer
        )


def rq_queue(name: str, connection: Redis) -> Queue:
    """An RQ queue object for one of our queues, with our serializer and job class."""
    return Queue(name, connection=connection, serializer=JSONSerializer, job_class=EnrichmentJob)


def queue_key(name: str) -> str:
    """The list RQ keeps a queue's job ids in."""
    return f"{Queue.redis_queue_namespace_prefix}{name}"


def intermediate_key(name: str) -> str:
    """The list that holds a job between the queue and the worker's bookkeeping."""
    return IntermediateQueue.get_intermediate_queue_key(queue_key(name))


def scheduled_key(name: str) -> str:
    """The sorted set of a queue's scheduled jobs, by Unix seconds."""
    return ScheduledJobRegistry.key_template.format(name)


def started_key(name: str) -> str:
    """The sorted set of a queue's executions, `<job id>:<execution id>`, by Unix seconds of their end."""
    return StartedJobRegistry.key_template.format(name)


def job_key(job_id: str) -> str:
    """The hash of one job."""
    return Job.key_for(job_id)


def stamp() -> str:
    """The present moment as RQ reads it from job hashes; its whole seconds are enough for people."""
    # strftime asks the system for its time zone first
    return now().replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def job_template(connection: Any) -> list[str | int]:
    """RQ's own hash of one of our jobs as a flat list, without what differs from job to job.

    The scripts write it as it is and add its creation, status, queue and description. To save memory, empty
    values are left out, which RQ reads as absent, and so short a function call is not compressed, as it would
    only become longer; RQ reads either.

    Args:
        connection: any redis client; nothing is sent.
    """
    job = EnrichmentJob.create(
        JOB_FUNCTION,
        args=[],
        connection=connection,
        id="template",
        serializer=JSONSerializer,
        timeout=JOB_TIMEOUT_SECONDS,
        result_ttl=0,
        failure_ttl=FAILED_JOB_TTL_SECONDS,
        description="",
    )
    varying = {"created_at", "enqueued_at", "status", "origin", "description"}
    flat: list[str | int] = []
    for name, value in {**job.to_dict(), "data": job.data.decode()}.items():
        if name not in varying and value != "":
            flat += [name, value]
    return flat
