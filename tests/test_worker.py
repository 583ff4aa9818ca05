"""The worker's heartbeat beside its jobs: it lets go of what others hold, not of what has just ended."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import structlog
from ledger_box import FIELD, LedgerBox, event, id_of, wanted
from redis.client import PubSubWorkerThread
from waiting import eventually

from service import jobs, keys
from service.embedded_redis import EmbeddedRedis
from service.enrichment import ENTRY_VERSION, State
from service.knowledge import Knowledge
from service.ledger import LEASE_MS
from service.meter import Meter
from service.redis_client import blocking_redis_client, redis_client
from service.rules import ObjectType, Rule, RuleBook
from service.schema import CustomField, Schema
from service.tasks import cancel_all
from workers.bookkeeping import IDLE_WAIT_SECONDS
from workers.enrich import enrich
from workers.records import RecordReader
from workers.reply import Reply
from workers.tools import Tools
from workers.worker import EnrichmentWorker

LEAD = ObjectType.LEAD
SEGMENT_FIELD = "cf_segment"
KNOWLEDGE = Knowledge.of(
    RuleBook(
        rules=(
            Rule(name="Industry", object_type=LEAD, field="Industry"),
            Rule(name="Segment", object_type=LEAD, field="Segment", after=("Industry",)),
        )
    ),
    {
        LEAD: Schema(
            object_type=LEAD,
            organization_id="orga_1",
            fields=(
                CustomField(id=FIELD, name="Industry", type="text"),
                CustomField(id=SEGMENT_FIELD, name="Segment", type="text"),
            ),
        )
    },
)


class Close:
    """Finds a value for every field of an empty record."""

    async def get_record(self, **_):
        return Reply(status=200, headers={"content-type": "application/json"}, body=b'{"id": "lead_1"}')

    async def enrich_field(self, **_):
        return Reply(status=200, headers={"content-type": "application/json"}, body=b'{"value": "Retail"}')


class Pace:
    """Lets every call go at once."""

    async def permit(self, **_):
        return SimpleNamespace(seq=1, at_ms=0)

    async def heard(self, *_, **__):
        pass

    async def used(self, *_):
        pass


@pytest.fixture
def box(async_redis):
    return LedgerBox(async_redis)


@pytest.fixture
def tools(box):
    close, log = Close(), structlog.testing.CapturingLogger()
    return Tools(
        ledger=box.ledger,
        api=close,
        records=RecordReader(close, pace=None, clock=time.monotonic),
        pace=Pace(),
        zone=dt.UTC,
        own_api_key_id=None,
        knowledge=lambda: KNOWLEDGE,
        random=random.SystemRandom(),
        now_ms=lambda: time.time_ns() // 1_000_000,
        log=log,
        meter=Meter(box.redis, clock=time.time, log=log),
        worker="w",
    )


@pytest.fixture
def worker(blocking_redis):
    return EnrichmentWorker(connection=blocking_redis, concurrency=4, grace_seconds=1.0, name="w")


@pytest.fixture
def beat(tools, worker, monkeypatch):
    """Let the worker's heartbeat look once at what is in hand."""
    heartbeat, looked = tools.ledger.heartbeat, asyncio.Event()

    async def seen(fences):
        try:
            return await heartbeat(fences)
        finally:
            looked.set()

    monkeypatch.setattr(tools.ledger, "heartbeat", seen)

    async def beat():
        looked.clear()
        beating = asyncio.create_task(worker._beat(tools))
        try:
            await looked.wait()
        finally:
            await cancel_all([beating])

    return beat


async def test_a_heartbeat_does_not_keep_a_job_that_has_just_ended_from_waking_others(
    box, tools, beat, monkeypatch
):
    await box.accept(event(), wanted(), wanted(SEGMENT_FIELD, rule="Segment"))
    industry, segment = [await box.entry(id_of(one)) for one in (FIELD, SEGMENT_FIELD)]
    await enrich(segment.job_id, tools, holder="w/1")
    blocked = await box.entry(segment.id)
    assert blocked.blocked
    assert blocked.job_id in await box.scheduled()
    settle = tools.ledger.settle

    async def settle_and_beat(*arguments, **options):
        kept = await settle(*arguments, **options)
        # Redis has it, and the job has not heard so yet
        await beat()
        return kept

    monkeypatch.setattr(tools.ledger, "settle", settle_and_beat)
    assert await enrich(industry.job_id, tools, holder="w/2")
    assert (await box.entry(industry.id)).state is State.FILLED
    assert blocked.job_id in await box.queued()


async def test_a_heartbeat_ends_a_job_whose_enrichment_somebody_else_holds(box, tools, beat, monkeypatch):
    entry = await box.plan()

    async def taken_over(**_):
        await box.let_lease_run_out(entry.id)
        await box.claim(entry.id)
        await beat()

    monkeypatch.setattr(tools.api, "get_record", taken_over)
    working = asyncio.create_task(enrich(entry.job_id, tools, holder="w/1"))
    with pytest.raises(asyncio.CancelledError):
        await working
    assert (await box.entry(entry.id)).holder == "worker/1"


async def test_leases_outlive_bookkeeping_that_waits_for_a_server_that_is_gone_without_a_word(
    box, tools, worker, monkeypatch
):
    monkeypatch.setattr("workers.worker.HEARTBEAT_SECONDS", 0.01)
    waits, goes_on = threading.Event(), threading.Event()

    def without_answer(_):
        waits.set()
        goes_on.wait(20)

    monkeypatch.setattr(worker._books, "heartbeat", without_answer)
    serving = asyncio.create_task(worker.serve(tools, alongside=list))
    try:
        await eventually(lambda: asyncio.sleep(0, waits.is_set()))
        claim = await box.claim((await box.plan(settle_seconds=60.0)).id)
        tools.hands.take(claim)
        before = await box.score(claim.entry.id)
        await eventually(lambda: later_than(box, claim, before))
    finally:
        goes_on.set()
        worker._stopping.set()
        await serving


async def test_a_job_whose_entry_is_a_newer_releases_is_offered_again_later_and_told_once(box, tools, worker):
    entries = [await box.plan(field_id=f"cf_{n}") for n in range(3)]
    for entry in entries:
        await box.redis.hset(keys.entry(entry.id), "v", ENTRY_VERSION + 1)
    serving = asyncio.create_task(worker.serve(tools, alongside=list))
    try:
        await eventually(lambda: all_scheduled(box, entries))
    finally:
        worker._stopping.set()
        await serving
    assert await box.queued() == []
    assert {await box.redis.hget(keys.entry(one.id), "fence") for one in entries} == {None}
    told = [call for call in tools.log.calls if call.args == ("left to workers of a newer release",)]
    assert len(told) == 1


async def test_a_worker_waits_for_a_redis_that_goes_away_while_it_starts(tools, tmp_path, monkeypatch):
    with EmbeddedRedis(tmp_path) as server, blocking_redis_client(server.url) as connection:
        client = redis_client(server.url)
        box = LedgerBox(client)
        tools = replace(tools, ledger=box.ledger)
        starting = EnrichmentWorker(connection=connection, concurrency=4, grace_seconds=1.0, name="late")
        set_state = starting.set_state

        def lose_redis(*given, **options):
            monkeypatch.setattr(starting, "set_state", set_state)
            server.kill()
            set_state(*given, **options)

        monkeypatch.setattr(starting, "set_state", lose_redis)
        serving = asyncio.create_task(starting.serve(tools, alongside=list))
        await eventually(lambda: is_told(tools, "waits for Redis"))
        await asyncio.to_thread(server.start)
        # as one that has been there for long: nothing can be in a call from before
        await client.set(keys.SINCE, 1)
        entry = await box.plan()
        try:
            await eventually(lambda: has_ended(box, entry))
            assert connection.smembers("rq:workers") == {b"rq:worker:late"}
        finally:
            starting._stopping.set()
            await serving
            await client.aclose()
        # RQ's commands are listened to once
        assert [one for one in threading.enumerate() if isinstance(one, PubSubWorkerThread)] == []


async def has_ended(box, entry):
    return (await box.entry(entry.id)).state is State.FILLED


async def test_a_worker_that_is_told_to_stop_while_it_waits_for_redis_stops(tools, tmp_path):
    with EmbeddedRedis(tmp_path) as server, blocking_redis_client(server.url) as connection:
        starting = EnrichmentWorker(connection=connection, concurrency=4, grace_seconds=1.0, name="late")
        server.kill()
        serving = asyncio.create_task(starting.serve(tools, alongside=list))
        await eventually(lambda: is_told(tools, "waits for Redis"))
        starting._stopping.set()
        await serving


async def foreign_job(box, entry):
    await box.redis.hset(jobs.job_key(entry.job_id), "data", b'["os.system", null, [], {}]')


async def lost_entry(box, entry):
    await box.redis.delete(keys.entry(entry.id))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (foreign_job, "a job that is not ours is not run"),
        (lost_entry, "a job without an enrichment is not run"),
    ],
)
async def test_a_job_that_delivers_nothing_is_told_in_the_log(box, tools, worker, spoil, told):
    entry = await box.plan()
    await spoil(box, entry)
    serving = asyncio.create_task(worker.serve(tools, alongside=list))
    try:
        await eventually(lambda: is_told(tools, told))
    finally:
        worker._stopping.set()
        await serving
    (call,) = [call for call in tools.log.calls if call.args == (told,)]
    assert (call.method_name, call.kwargs["job"]) == ("warning", entry.job_id)


async def is_told(tools, told):
    return any(call.args == (told,) for call in tools.log.calls)


async def all_scheduled(box, entries):
    return set(await box.scheduled()) == {entry.job_id for entry in entries}


async def test_halted_with_nothing_to_try_it_looks_about_once_a_second(box, tools, worker, monkeypatch):
    asked, pauses = [], []
    may_try = tools.ledger.brakes.may_try

    async def counted():
        asked.append(await may_try())
        return asked[-1]

    async def first_of(other):
        pauses.append(other)
        other.close()
        if len(pauses) == 5:
            worker._stopping.set()
        await asyncio.sleep(0)

    monkeypatch.setattr(tools.ledger.brakes, "may_try", counted)
    monkeypatch.setattr(worker, "_first_of", first_of)
    await box.ledger.brakes.halt(reason="no credits", kind="credits")
    await worker.serve(tools, alongside=list)
    assert True in asked
    assert len(pauses) == len(asked) == 5


async def later_than(box, claim, moment):
    return await box.score(claim.entry.id) > moment


def test_a_server_that_is_gone_without_a_word_is_noticed_before_leases_run_out(worker):
    timeout_seconds = worker.connection.connection_pool.connection_kwargs["socket_timeout"]
    assert IDLE_WAIT_SECONDS < timeout_seconds < LEASE_MS / 1000
