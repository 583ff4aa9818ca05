"""Our jobs as RQ sees them: classes, command line and a stock worker read what our scripts write."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zlib
from datetime import UTC, datetime, timedelta

import pytest
from ledger_box import LedgerBox, event, id_of, wanted
from rq import Queue, Worker
from rq.exceptions import DeserializationError
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry, ScheduledJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer

from service import jobs, keys
from service.enrichment import State, entry_of_job
from service.jobs import EnrichmentJob, FunctionNotAllowedError, rq_queue
from service.rules import Priority

NOBODY_LISTENS = "http://127.0.0.1:1"
MOST_BYTES_WAITING = 1024
RULE = "Industry of the company, from its web site"


@pytest.fixture
def box(async_redis):
    return LedgerBox(async_redis)


def rq(*arguments, url, **environment):
    """RQ's command line as a process."""
    command = [sys.executable, "-m", "rq.cli", *arguments, "--url", url]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True, env={**os.environ, **environment}
    )


async def test_rq_finds_the_jobs_in_their_queues(box, blocking_redis):
    await box.accept(
        event(), wanted("cf_a"), wanted("cf_b", priority=Priority.HIGH), wanted("cf_c", priority=Priority.LOW)
    )
    a, b, c = [(await box.entry(id_of(field))).job_id for field in ("cf_a", "cf_b", "cf_c")]
    assert Queue(jobs.LIVE_QUEUE, connection=blocking_redis).get_job_ids() == [b, a]
    assert rq_queue(jobs.BULK_QUEUE, blocking_redis).get_job_ids() == [c]
    assert {queue.name for queue in Queue.all(connection=blocking_redis)} == set(jobs.QUEUES)


async def test_every_field_of_a_job_parses(box, blocking_redis):
    entry = await box.plan(rule="Größe")
    job = EnrichmentJob.fetch(entry.job_id, connection=blocking_redis, serializer=JSONSerializer)
    assert (job.func_name, job.args, job.kwargs, job.instance) == (jobs.JOB_FUNCTION, [], {}, None)
    assert job.get_status() is JobStatus.QUEUED
    assert (job.origin, job.description) == (jobs.LIVE_QUEUE, "Größe")
    assert (job.timeout, job.result_ttl, job.failure_ttl) == (1800, 0, 24 * 3600)
    age = datetime.now(UTC) - job.created_at
    assert timedelta() <= age < timedelta(minutes=1)
    assert (job.enqueued_at, job.started_at, job.ended_at) == (None, None, None)
    assert (job.worker_name, job.latest_result()) == (None, None)
    assert job.dependency_ids == []
    assert entry_of_job(job.id) == entry.id


async def test_our_job_is_rqs_own_but_for_moments_compression_and_empty_values(box, blocking_redis):
    """What RQ would have written for the same function, field by field."""
    entry = await box.plan()
    queue = rq_queue(jobs.LIVE_QUEUE, blocking_redis)
    theirs = queue.enqueue(
        jobs.JOB_FUNCTION,
        job_timeout=jobs.JOB_TIMEOUT_SECONDS,
        result_ttl=0,
        failure_ttl=jobs.FAILED_JOB_TTL_SECONDS,
        description="Industry",
    )
    moments = {b"created_at", b"enqueued_at"}
    ours, rqs = (
        {
            name: value
            for name, value in blocking_redis.hgetall(jobs.job_key(one)).items()
            if name not in moments
        }
        for one in (entry.job_id, theirs.id)
    )
    assert zlib.decompress(rqs.pop(b"data")) == ours.pop(b"data")
    assert ours == {name: value for name, value in rqs.items() if value}


async def test_rq_finds_scheduled_jobs_and_their_times(box, blocking_redis):
    entry = await box.plan(settle_seconds=90)
    registry = ScheduledJobRegistry(queue=rq_queue(jobs.LIVE_QUEUE, blocking_redis))
    assert registry.get_job_ids() == [entry.job_id]
    due = datetime.fromtimestamp(entry.due_ms / 1000, UTC)
    assert abs(registry.get_scheduled_time(entry.job_id) - due) < timedelta(milliseconds=2)
    assert registry.get_jobs_to_enqueue(entry.due_ms / 1000 - 1) == []
    assert registry.get_jobs_to_enqueue(entry.due_ms / 1000 + 0.001) == [entry.job_id]
    job = EnrichmentJob.fetch(entry.job_id, connection=blocking_redis, serializer=JSONSerializer)
    assert job.get_status() is JobStatus.SCHEDULED


async def test_a_promoted_job_is_queued_to_rq(box, blocking_redis):
    entry = await box.plan(settle_seconds=90)
    assert await box.ledger.promote(jobs.LIVE_QUEUE, [entry.job_id]) == 1
    job = EnrichmentJob.fetch(entry.job_id, connection=blocking_redis, serializer=JSONSerializer)
    assert job.get_status() is JobStatus.QUEUED
    assert job.get_position() == 0


@pytest.mark.parametrize("priority", [Priority.HIGH, Priority.NORMAL])
async def test_rqs_own_scheduler_would_move_it_to_the_same_end(box, blocking_redis, priority):
    entry = await box.plan(settle_seconds=90, priority=priority)
    job = EnrichmentJob.fetch(entry.job_id, connection=blocking_redis, serializer=JSONSerializer)
    assert bool(job.enqueue_at_front) is (priority is Priority.HIGH)


async def test_rq_info_counts_them(box, redis_url):
    await box.accept(event(), wanted("cf_a"), wanted("cf_b"), wanted("cf_c", priority=Priority.LOW))
    raw = rq("info", "--raw", url=redis_url).stdout.splitlines()
    assert {line.partition(",")[0] for line in raw if line.startswith("queue ")} == {
        "queue enrich 2",
        "queue enrich-bulk 1",
    }
    pretty = rq("info", url=redis_url).stdout
    assert "2 queues, 3 jobs total" in pretty


async def test_a_stock_rq_worker_runs_one_of_our_jobs_to_its_end(box, redis_url, blocking_redis, tmp_path):
    entry = await box.plan()
    rules = tmp_path / "rules.yaml"
    rules.write_text("version: 1\nrules: [{name: Industry, object: lead, field: Industry, enabled: false}]\n")
    done = rq(
        *(
            "worker",
            "--burst",
            "--worker-class",
            "rq.SimpleWorker",
            "--job-class",
            "service.jobs.EnrichmentJob",
        ),
        *("--serializer", "rq.serializers.JSONSerializer", jobs.LIVE_QUEUE),
        url=redis_url,
        REDIS_URL=redis_url,
        CLOSE_API_KEY="api_example.key",
        CLOSE_API_URL=NOBODY_LISTENS,
        RULES_FILE=str(rules),
    )
    settled = await box.entry(entry.id)
    assert (settled.state, settled.reason) == (State.SKIPPED, "its rule is disabled"), done.stderr
    queue = rq_queue(jobs.LIVE_QUEUE, blocking_redis)
    assert queue.get_job_ids() == []
    assert queue.intermediate_queue.get_job_ids() == []
    assert StartedJobRegistry(queue=queue).get_job_ids() == []
    assert FailedJobRegistry(queue=queue).get_job_ids() == []
    assert not blocking_redis.exists(jobs.job_key(entry.job_id))
    assert Worker.all(connection=blocking_redis) == []


@pytest.mark.parametrize("function", ["os.system", "workers.enrich.enrich", "workers.enrich.run.x", ""])
def test_a_job_refuses_every_function_but_ours(blocking_redis, function):
    job = EnrichmentJob.create("os.getcwd", connection=blocking_redis, serializer=JSONSerializer)
    job.func_name = function
    with pytest.raises(FunctionNotAllowedError) as refusal:
        _ = job.func
    assert "os" not in str(refusal.value)


class Explosive:
    def __reduce__(self):
        return (pytest.fail, ("it was unpickled",))


def test_pickled_data_is_never_unpickled(blocking_redis):
    stored = Job.create(jobs.JOB_FUNCTION, connection=blocking_redis, id="pickled")
    stored.data = pickle.dumps((jobs.JOB_FUNCTION, None, [Explosive()], {}))
    stored.save()
    job = EnrichmentJob.fetch("pickled", connection=blocking_redis, serializer=JSONSerializer)
    with pytest.raises(DeserializationError):
        _ = job.func


async def test_what_waits_is_small(box, blocking_redis, capsys):
    """All keys together, for leads with three fields each; but for the history, which is capped."""
    leads = [f"lead_9hWfpU3HBGeya7iAhKQq2Zy15NdWAoVTECHuzfk{one:04}" for one in range(200)]
    fields = [f"cf_9hWfpU3HBGeya7iAhKQq2Zy15NdWAoVTECHuzfkkMj{one}" for one in range(3)]
    for lead in leads:
        items = [wanted(field, object_id=lead, rule=RULE) for field in fields]
        await box.accept(event(f"ev_{lead}", object_id=lead), *items)
    names = set(blocking_redis.keys()) - {keys.HISTORY.encode()}
    with blocking_redis.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.memory_usage(name, samples=0)
        sizes = pipeline.execute()
    each = sum(sizes) / len(leads) / len(fields)
    with capsys.disabled():
        sys.stdout.write(f"\n  one waiting enrichment takes {each:.0f} bytes in Redis\n")
    assert each < MOST_BYTES_WAITING


async def test_entries_and_jobs_stay_in_the_compact_encoding(box, blocking_redis):
    entry = await box.plan(settle_seconds=5, priority=Priority.HIGH, rule=RULE)
    assert blocking_redis.object("encoding", jobs.job_key(entry.job_id)) == b"listpack"
    assert blocking_redis.object("encoding", keys.entry(entry.id)) == b"listpack"
    await box.postpone(
        await box.calling(entry.id), reason="no answer within 120 s", ambiguous=True, failed=True
    )
    entry = await box.entry(entry.id)
    assert blocking_redis.object("encoding", jobs.job_key(entry.job_id)) == b"listpack"
    assert blocking_redis.object("encoding", keys.entry(entry.id)) == b"listpack"
