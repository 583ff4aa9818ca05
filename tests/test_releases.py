"""Two releases side by side on a real Redis: a worker leaves a newer one's jobs first in line, untouched."""

from __future__ import annotations

import contextlib

import pytest
from ledger_box import LedgerBox, event, id_of, wanted
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker

from service import jobs, keys
from service.enrichment import ENTRY_VERSION, State, job_version
from service.jobs import EnrichmentJob, rq_queue
from service.rules import Priority
from workers.bookkeeping import Batch, Bookkeeper


@pytest.fixture
def box(async_redis):
    return LedgerBox(async_redis)


@pytest.fixture
def books(blocking_redis):
    worker = BaseWorker(
        list(jobs.QUEUES),
        name="old",
        connection=blocking_redis,
        serializer=JSONSerializer,
        job_class=EnrichmentJob,
        prepare_for_work=True,
    )
    worker.register_birth()
    return Bookkeeper(worker, blocking_redis)


@contextlib.contextmanager
def newer_release():
    """Do as the next release would."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("service.accept", "service.claims", "service.ledger", "workers.bookkeeping"):
            patch.setattr(f"{module}.ENTRY_VERSION", ENTRY_VERSION + 1)
        yield


@pytest.fixture
def no_wait(monkeypatch):
    """Waits are noted, not made."""
    waits = []
    monkeypatch.setattr("workers.bookkeeping.time.sleep", waits.append)
    return waits


async def planned(box, *fields, **options):
    """Job ids of so many planned fields, in order."""
    await box.accept(event(), *(wanted(field, **options) for field in fields))
    return [(await box.entry(id_of(field))).job_id for field in fields]


async def planned_by_newer(box, *fields, **options):
    with newer_release():
        return await planned(box, *fields, **options)


def ids(batch):
    return [one.job.id for one in batch.taken]


async def test_a_job_tells_its_entrys_version(box):
    (job_id,) = await planned(box, "cf_a")
    assert job_version(job_id) == ENTRY_VERSION == (await box.entry(id_of("cf_a"))).version


async def test_work_put_back_keeps_the_version_of_its_entry(box):
    await planned(box, "cf_a")
    claim = await box.claim(id_of("cf_a"))
    with newer_release():
        await box.postpone(claim)
    assert job_version((await box.entry(id_of("cf_a"))).job_id) == ENTRY_VERSION, (
        "a rollback can go on with it"
    )


@pytest.mark.parametrize("priority", [Priority.NORMAL, Priority.LOW])
async def test_newer_jobs_are_passed_over_and_keep_their_place(box, books, priority):
    before = await planned(box, "cf_1", priority=priority)
    theirs = await planned_by_newer(box, "cf_2", "cf_3", priority=priority)
    after = await planned(box, "cf_4", "cf_5", priority=priority)
    queue = jobs.BULK_QUEUE if priority is Priority.LOW else jobs.LIVE_QUEUE
    whole_entry = await box.redis.hgetall(keys.entry(id_of("cf_2")))
    score = await box.score(id_of("cf_2"))

    batch = books.take(2, wait=False)
    assert (ids(batch), batch.newer) == ([*before, after[0]], 2)
    assert await box.queued(queue) == [*theirs, after[1]]
    assert ids(books.take(2, wait=False)) == [after[1]]
    assert books.take(2, wait=False) == Batch(newer=2)
    assert await box.queued(queue) == theirs
    assert await box.redis.llen(jobs.intermediate_key(queue)) == 0
    assert await box.redis.hgetall(keys.entry(id_of("cf_2"))) == whole_entry
    assert await box.score(id_of("cf_2")) == score


async def test_a_newer_releases_worker_takes_old_and_new(box, books):
    ours = await planned(box, "cf_1")
    theirs = await planned_by_newer(box, "cf_2")
    with newer_release():
        batch = books.take(5, wait=False)
    assert (ids(batch), batch.newer) == ([*ours, *theirs], 0)


async def test_while_only_newer_live_jobs_are_there_the_worker_pauses(box, books, no_wait):
    await planned_by_newer(box, "cf_1")
    assert books.take(5, wait=True) == Batch(newer=1)
    assert len(no_wait) == 1
    assert no_wait[0] >= 0.25


async def test_newer_bulk_jobs_do_not_keep_it_from_waiting_for_live_ones(box, books, no_wait, monkeypatch):
    monkeypatch.setattr("workers.bookkeeping.IDLE_WAIT_SECONDS", 0.01)
    await planned_by_newer(box, "cf_1", priority=Priority.LOW)
    assert books.take(5, wait=True) == Batch(newer=1)
    assert no_wait == []


async def test_a_newer_job_that_comes_while_waiting_goes_back_first_in_line(box, books, monkeypatch):
    theirs = await planned_by_newer(box, "cf_1", "cf_2")
    # as if they came just after the look
    monkeypatch.setattr(books, "_pop", lambda **_: [b"jobs", [], [], 0, 0])
    assert books.take(5, wait=True) == Batch(newer=1)
    assert await box.queued() == theirs
    assert await box.redis.llen(jobs.intermediate_key(jobs.LIVE_QUEUE)) == 0


async def test_many_newer_jobs_do_not_keep_a_worker_from_its_own_for_ever(box, books, monkeypatch):
    monkeypatch.setattr("workers.bookkeeping.MOST_NEWER", 3)
    theirs = await planned_by_newer(box, *(f"cf_{n}" for n in range(4)))
    (ours,) = await planned(box, "cf_ours")
    assert books.take(5, wait=False) == Batch(newer=3)
    assert await box.queued() == [theirs[3], ours, *theirs[:3]]
    assert ids(books.take(1, wait=False)) == [ours]

    await planned(box, "cf_ours_too")
    assert books.take(5, wait=False) == Batch(newer=3)
    assert await box.queued() == [theirs[3], *theirs[:3], (await box.entry(id_of("cf_ours_too"))).job_id], (
        "turning the queue has its own pace"
    )


async def test_a_job_whose_entry_turns_out_to_be_newer_is_offered_again_in_a_few_seconds(
    box, books, blocking_redis
):
    (job_id,) = await planned(box, "cf_1")
    (taken,) = books.take(1, wait=False).taken
    books.leave(taken)
    ((scheduled, due),) = (await box.scheduled()).items()
    assert scheduled == job_id
    assert 0 < due * 1000 - await box.now_ms() < 10_000
    job = Job.fetch(job_id, connection=blocking_redis, serializer=JSONSerializer)
    assert job.get_status() is JobStatus.SCHEDULED
    assert rq_queue(jobs.LIVE_QUEUE, blocking_redis).started_job_registry.get_job_count(cleanup=False) == 0
    assert await box.ledger.promote(jobs.LIVE_QUEUE, [job_id]) == 1
    assert (await box.claim(id_of("cf_1"))).entry.state is State.PLANNED
