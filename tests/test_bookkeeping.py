"""RQ's bookkeeping in batches, on a real Redis: nothing taken is lost, and RQ sees what goes on."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta

import pytest
import redis
from ledger_box import LedgerBox, event, id_of, wanted
from rq import Worker
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker

from service import jobs, keys
from service.jobs import EnrichmentJob, rq_queue
from service.ledger import LEASE_MS
from service.rules import Priority
from workers.bookkeeping import EXECUTION_TTL_SECONDS, Batch, Bookkeeper

NAME = "worker-1"


@pytest.fixture
def box(async_redis):
    return LedgerBox(async_redis)


@pytest.fixture
def worker(blocking_redis):
    made = BaseWorker(
        list(jobs.QUEUES),
        name=NAME,
        connection=blocking_redis,
        serializer=JSONSerializer,
        job_class=EnrichmentJob,
        prepare_for_work=True,
    )
    made.register_birth()
    return made


@pytest.fixture
def books(worker, blocking_redis):
    return Bookkeeper(worker, blocking_redis)


def intermediate(client, queue=jobs.LIVE_QUEUE):
    return [one.decode() for one in client.lrange(jobs.intermediate_key(queue), 0, -1)]


def rq_keys(client):
    """What RQ holds of jobs, beside its lists of queues and workers."""
    kinds = ("rq:job:", "rq:exec", "rq:wip:", "rq:queue:", "rq:failed:", "rq:results:", f"rq:worker:{NAME}:")
    return {one.decode() for one in client.keys("rq:*") if one.decode().startswith(kinds)}


async def several(box, number):
    """Job ids of so many planned fields, in order."""
    fields = [f"cf_{n}" for n in range(number)]
    await box.accept(event(), *map(wanted, fields))
    return [(await box.entry(id_of(field))).job_id for field in fields]


def taken_ids(batch):
    return [one.job.id for one in batch.taken]


async def test_the_sweeper_soon_finds_an_entry_whose_job_was_gone_from_under_its_id(box, books):
    (job_id,) = await several(box, 1)
    await box.redis.delete(jobs.job_key(job_id))
    assert books.take(5, wait=False) == Batch()

    entry = await box.entry(id_of("cf_0"))
    assert 0 < await box.score(entry.id) - await box.now_ms() <= LEASE_MS


async def test_jobs_are_taken_live_before_bulk_and_no_more_than_there_is_room_for(box, books):
    await box.accept(
        event(),
        wanted("cf_a", priority=Priority.LOW),
        wanted("cf_b"),
        wanted("cf_c"),
        wanted("cf_d", priority=Priority.LOW),
    )
    a, b, c, d = [(await box.entry(id_of(f"cf_{one}"))).job_id for one in "abcd"]
    assert [taken_ids(books.take(most, wait=False)) for most in (1, 2, 5)] == [[b], [c, a], [d]]


async def test_bulk_jobs_leave_places_free_that_live_ones_may_take(box, books):
    await box.accept(event(), *(wanted(f"cf_bulk{n}", priority=Priority.LOW) for n in range(5)))
    assert [len(books.take(most, wait=False, kept_free=2).taken) for most in (5, 2, 1)] == [3, 0, 0]
    live = await several(box, 3)
    assert taken_ids(books.take(2, wait=False, kept_free=2)) == live[:2]
    assert taken_ids(books.take(4, wait=False, kept_free=2))[0] == live[2]


async def test_while_bulk_jobs_have_all_their_places_the_wait_for_a_live_one_is_short(
    box, books, blocking_redis, monkeypatch
):
    monkeypatch.setattr("workers.bookkeeping.IDLE_WAIT_SECONDS", 600.0)
    monkeypatch.setattr("workers.bookkeeping.BULK_FULL_WAIT_SECONDS", 0.01)
    await box.accept(event(), wanted("cf_bulk", priority=Priority.LOW))
    assert books.take(2, wait=True, kept_free=2) == Batch()
    assert len(books.take(3, wait=True, kept_free=2).taken) == 1
    assert intermediate(blocking_redis) == []


def test_empty_queues_give_an_empty_batch(books):
    assert books.take(5, wait=False) == Batch()


def test_waiting_ends_after_about_a_second(books, monkeypatch):
    monkeypatch.setattr("workers.bookkeeping.IDLE_WAIT_SECONDS", 0.01)
    assert books.take(5, wait=True) == Batch()


async def test_a_job_that_comes_while_waiting_is_taken(box, books, blocking_redis, monkeypatch):
    (job_id,) = await several(box, 1)
    # as if it came just after the look
    monkeypatch.setattr(books, "_pop", lambda **_: [b"jobs", [], [], 0, 0])
    assert taken_ids(books.take(5, wait=True)) == [job_id]
    assert intermediate(blocking_redis) == []


async def test_while_halted_nothing_is_taken_but_for_a_trial(box, books):
    first, second = await several(box, 2)
    await box.ledger.brakes.halt(reason="no credits", kind="credits")
    assert books.take(5, wait=True) == Batch(halted=True)
    assert await box.queued() == [first, second]
    assert taken_ids(books.take(1, wait=False, despite_halt=True)) == [first]


async def test_rq_sees_what_runs(box, books, worker, blocking_redis):
    ids = await several(box, 3)
    batch = books.take(3, wait=False)
    assert taken_ids(batch) == ids
    queue = rq_queue(jobs.LIVE_QUEUE, blocking_redis)
    assert queue.get_job_ids() == []
    registry = StartedJobRegistry(queue=queue)
    assert sorted(registry.get_job_ids()) == sorted(ids)
    job = EnrichmentJob.fetch(ids[0], connection=blocking_redis, serializer=JSONSerializer)
    assert (job.get_status(), job.worker_name) == (JobStatus.STARTED, NAME)
    assert datetime.now(UTC) - job.started_at < timedelta(minutes=1)
    (execution,) = job.get_executions()
    assert (execution.id, execution.worker_name) == (batch.taken[0].execution.id, NAME)
    (found,) = Worker.all(connection=blocking_redis)
    assert (found.name, found.get_state(), found.successful_job_count) == (NAME, "busy", 0)
    assert blocking_redis.scard(worker.executions_key) == 3


async def test_nothing_is_left_of_a_job_that_has_ended(box, books, blocking_redis):
    await several(box, 3)
    batch = books.take(3, wait=False)
    books.finish(batch.taken)
    assert rq_keys(blocking_redis) == set()
    (found,) = Worker.all(connection=blocking_redis)
    assert (found.successful_job_count, found.failed_job_count) == (3, 0)
    assert found.total_working_time > 0


async def test_each_of_several_jobs_ends_on_its_own(box, books, blocking_redis):
    first, second = await several(box, 2)
    batch = books.take(2, wait=False)
    books.finish(batch.taken[:1])
    registry = StartedJobRegistry(queue=rq_queue(jobs.LIVE_QUEUE, blocking_redis))
    assert registry.get_job_ids() == [second]
    assert not blocking_redis.exists(jobs.job_key(first))
    assert blocking_redis.exists(jobs.job_key(second))


def test_finishing_nothing_counts_nothing(books, blocking_redis):
    books.finish([])
    (found,) = Worker.all(connection=blocking_redis)
    assert found.successful_job_count == 0


async def test_a_heartbeat_keeps_worker_and_jobs_alive_to_rq(box, books, worker, blocking_redis):
    await several(box, 1)
    batch = books.take(1, wait=False)
    (one,) = batch.taken
    started = StartedJobRegistry(queue=rq_queue(jobs.LIVE_QUEUE, blocking_redis))
    blocking_redis.zadd(started.key, {one.execution.composite_key: 1})
    blocking_redis.expire(one.execution.key, 5)
    blocking_redis.expire(worker.key, 5)
    books.heartbeat(batch.taken)
    assert started.get_job_ids() == [one.job.id]
    assert EXECUTION_TTL_SECONDS - 5 < blocking_redis.ttl(one.execution.key) <= EXECUTION_TTL_SECONDS
    assert blocking_redis.ttl(worker.key) > 5
    assert Execution.fetch(one.execution.id, one.job.id, blocking_redis).worker_name == NAME
    books.finish(batch.taken)
    books.heartbeat([])
    assert Worker.all(connection=blocking_redis)[0].get_state() == "idle"


async def test_a_heartbeat_does_not_bring_back_what_has_ended(box, books, blocking_redis):
    await several(box, 1)
    batch = books.take(1, wait=False)
    books.finish(batch.taken)
    books.heartbeat(batch.taken)
    assert StartedJobRegistry(queue=rq_queue(jobs.LIVE_QUEUE, blocking_redis)).get_job_ids() == []


async def test_a_job_is_not_lost_when_its_worker_dies_between_pop_and_start(box, books, blocking_redis):
    ids = await several(box, 2)

    def die(_found):
        raise redis.ConnectionError("killed")

    books._start, real = die, books._start
    with pytest.raises(redis.ConnectionError):
        books.take(2, wait=False)
    books._start = real
    assert intermediate(blocking_redis) == ids
    assert await box.queued() == []
    job = EnrichmentJob.fetch(ids[0], connection=blocking_redis, serializer=JSONSerializer)
    assert job.get_status() is JobStatus.QUEUED


async def test_the_sweeper_soon_looks_after_what_was_started_and_not_taken_in_hand(box, books):
    (job_id,) = await several(box, 1)
    books.take(1, wait=False)
    left_ms = await box.score(id_of("cf_0")) - await box.now_ms()
    assert 0 < left_ms <= LEASE_MS
    assert (await box.claim(id_of("cf_0"), job_id=job_id)).entry.job_id == job_id


async def test_starting_a_job_once_more_does_not_touch_the_lease_of_who_has_its_entry_in_hand(box, books):
    (job_id,) = await several(box, 1)
    await box.claim(id_of("cf_0"))
    await box.let_lease_run_out(id_of("cf_0"))
    before = await box.score(id_of("cf_0"))
    assert taken_ids(books.take(1, wait=False)) == [job_id]
    assert await box.score(id_of("cf_0")) == before


async def test_starting_a_stale_job_does_not_touch_its_entry(box, books):
    (stale,) = await several(box, 1)
    await box.postpone(await box.claim(id_of("cf_0")), delay_seconds=3600)
    before = await box.score(id_of("cf_0"))
    assert taken_ids(books.take(1, wait=False)) == [stale]
    assert await box.score(id_of("cf_0")) == before


async def test_a_job_whose_hash_is_gone_is_dropped(box, books, blocking_redis):
    gone, there = await several(box, 2)
    blocking_redis.delete(jobs.job_key(gone))
    assert taken_ids(books.take(2, wait=False)) == [there]
    assert intermediate(blocking_redis) == []
    assert not blocking_redis.exists(jobs.job_key(gone))


class Explosive:
    def __reduce__(self):
        return (pytest.fail, ("it was unpickled",))


def planted(client, **fields):
    """A job that somebody else has put into our queue."""
    job = Job.create(
        "os.getcwd", connection=client, id="planted", origin=jobs.LIVE_QUEUE, serializer=JSONSerializer
    )
    client.hset(job.key, mapping={**job.to_dict(), "status": "queued", **fields})
    client.rpush(jobs.queue_key(jobs.LIVE_QUEUE), job.id)


@pytest.mark.parametrize(
    ("fields", "explanation"),
    [
        ({}, "a function this service does not run"),
        ({"data": pickle.dumps((jobs.JOB_FUNCTION, None, [Explosive()], {}))}, "not ours to read (Deserial"),
        ({"data": b"[1, 2]"}, "not ours to read"),
        ({"data": b"\xff"}, "not ours to read"),
        ({"created_at": "yesterday"}, "not ours to read (ValueError)"),
        ({"status": "unheard of"}, "not ours to read (ValueError)"),
        ({"result_ttl": "long"}, "not ours to read (ValueError)"),
        ({"dependency_ids": "{"}, "not ours to read (JSONDecodeError)"),
    ],
    ids=[
        "another function",
        "pickle",
        "not four parts",
        "not text",
        "time",
        "status",
        "number",
        "dependencies",
    ],
)
async def test_what_is_not_ours_ends_in_rqs_list_of_failures_and_stops_nobody(
    box, books, blocking_redis, fields, explanation
):
    planted(blocking_redis, **fields)
    (ours,) = await several(box, 1)
    batch = books.take(5, wait=False)
    assert taken_ids(batch) == ["planted", ours]
    refused, good = batch.taken
    assert good.error is None
    assert explanation in refused.error
    assert "os.getcwd" not in refused.error
    books.fail(refused, refused.error)
    queue = rq_queue(jobs.LIVE_QUEUE, blocking_redis)
    registry = FailedJobRegistry(queue=queue)
    assert registry.get_job_ids() == ["planted"]
    assert StartedJobRegistry(queue=queue).get_job_ids() == [ours]
    job = EnrichmentJob.fetch("planted", connection=blocking_redis, serializer=JSONSerializer)
    assert job.get_status() is JobStatus.FAILED
    assert job.latest_result().exc_string == refused.error
    assert job.ended_at is not None
    (found,) = Worker.all(connection=blocking_redis)
    assert (found.successful_job_count, found.failed_job_count) == (0, 1)
    assert intermediate(blocking_redis) == []


async def test_a_refused_job_is_kept_for_a_day(books, blocking_redis):
    planted(blocking_redis, created_at="yesterday")
    (refused,) = books.take(5, wait=False).taken
    books.fail(refused, refused.error)
    assert 0 < blocking_redis.ttl(jobs.job_key("planted")) <= jobs.FAILED_JOB_TTL_SECONDS


async def test_the_halt_is_looked_at_in_the_same_step_as_the_queues(books):
    assert books._pop_keys == [
        keys.HALT,
        *("rq:queue:enrich", "rq:queue:enrich:intermediate"),
        *("rq:queue:enrich-bulk", "rq:queue:enrich-bulk:intermediate"),
    ]


async def test_a_redis_that_has_lost_everything_learns_of_the_worker_by_its_heartbeat(books, blocking_redis):
    (before,) = Worker.all(connection=blocking_redis)
    blocking_redis.flushall()
    books.heartbeat([])
    (found,) = Worker.all(connection=blocking_redis)
    assert (found.name, found.queue_names(), found.pid) == (NAME, list(jobs.QUEUES), before.pid)
    assert found.get_state() == "idle"
    assert blocking_redis.ttl(found.key) > 0
