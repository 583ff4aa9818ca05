"""A real service of Sentinels: clients find the master, and find it anew when it is gone."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest
import redis
from ledger_box import LedgerBox, event, wanted
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff
from sentinel_box import SentinelBox
from waiting import eventually, wait_until

from service.accept import Accepter, StoreUnavailableError
from service.ledger import Ledger
from service.redis_client import blocking_redis_client, redis_client
from service.redis_connections import trouble
from service.replicas import TooFewReplicasError, confirm

pytestmark = pytest.mark.slow

PATIENT = Retry(ExponentialBackoff(cap=0.5, base=0.05), 60)


@pytest.fixture
def box(tmp_path):
    with SentinelBox(tmp_path, password="hunter2", sentinel_password="hunter3") as made:
        yield made


@pytest.fixture
async def client(box):
    made = redis_client(box.url(), retry=PATIENT, timeout_seconds=1.0)
    yield made
    await made.aclose()


async def test_clients_go_on_with_the_replica_that_takes_over(box, client):
    script = client.register_script("return redis.call('INCR', KEYS[1])")
    pooled = redis_client(box.url(), retry=PATIENT, timeout_seconds=1.0, most_connections=2)
    with blocking_redis_client(box.url()) as blocking:
        assert (await script(keys=["n"]), await pooled.incr("n"), blocking.incr("n")) == (1, 2, 3)
        await confirm(client, 2)
        before = box.master_port()
        box.kill(before)

        # one command, sent while there is no master, waits for the next one; its digest is new there
        assert await script(keys=["n"]) == 4
        assert await pooled.incr("n") == 5
        assert blocking_incr(blocking) == 6
    assert box.master_port() != before
    await pooled.aclose()


def blocking_incr(client):
    """As a worker does: once more after an error."""

    def once():
        try:
            return client.incr("n")
        except redis.ConnectionError:
            return None

    return wait_until(once)


async def test_without_a_master_a_receivers_client_gives_up_within_a_second(box):
    hasty = redis_client(
        box.url(), retry=Retry(NoBackoff(), 0), timeout_seconds=0.9, connect_timeout_seconds=0.9
    )
    assert await hasty.ping()
    # a Sentinel that hangs, asked first, and a master that hangs: neither costs more than the time allowed
    box.send(box.sentinel_ports[0], signal.SIGSTOP)
    box.send(box.master_port(), signal.SIGSTOP)
    longest = 0.0
    while True:
        begun = time.monotonic()
        try:
            await hasty.incr("n")
        except redis.RedisError:
            longest = max(longest, time.monotonic() - begun)
        else:
            break
    assert 0 < longest < 1.5
    await hasty.aclose()


async def test_a_demoted_master_is_left_for_the_new_one(box, client):
    assert await client.incr("n") == 1
    before = box.master_port()
    await eventually(lambda: is_confirmed(client, 2))
    box.sentinel(box.sentinel_ports[0]).sentinel_failover("mymaster")
    await asyncio.to_thread(wait_until, lambda: box.master_port() != before, seconds=30)
    await asyncio.to_thread(
        wait_until, lambda: box.client(before).info("replication")["role"] == "slave", seconds=30
    )
    # the old one is still there, and connections to it may be, too
    assert await client.incr("n") == 2
    assert box.client(box.master_port()).get("n") == b"2"


async def is_confirmed(client, replicas):
    try:
        await confirm(client, replicas)
    except TooFewReplicasError:
        return False
    return True


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda box: box.url("another"), "Sentinel watches no service named another; it knows: mymaster"),
        (lambda box: box.url().partition("?")[0], "Sentinel refuses our user or password"),
        (lambda box: box.url().replace("hunter2", "hunter4"), "it refuses our user or password"),
        (
            lambda _: "redis+sentinel://127.0.0.1:1,127.0.0.1:2/mymaster",
            "no Sentinel answers (ConnectionError)",
        ),
    ],
)
async def test_why_there_is_no_master_is_said(box, change, words):
    client = redis_client(change(box))
    with pytest.raises(redis.RedisError) as error:
        await client.ping()
    await client.aclose()
    assert trouble(error.value).startswith(words)
    with blocking_redis_client(change(box)) as blocking, pytest.raises(redis.RedisError) as error:
        blocking.ping()
    assert trouble(error.value).startswith(words)
    assert "hunter" not in str(error.value)


async def test_what_replicas_do_not_confirm_is_not_accepted_and_not_called(box, client):
    accepter = Accepter(client, wait_replicas=2)
    (accepted,) = await accepter.accept(event("ev_1"), [wanted()])
    assert accepted.result == "planned"
    ledger = Ledger(client, wait_replicas=2)
    claim = await LedgerBox(client).claim(accepted.enrichment)

    replica = next(port for port in box.ports if port != box.master_port())
    box.send(replica, signal.SIGSTOP)
    with pytest.raises(StoreUnavailableError, match="TooFewReplicasError"):
        await accepter.accept(event("ev_2", object_id="lead_other"), [wanted(object_id="lead_other")])
    assert (await ledger.permit_call(claim, group="enrich", only_ask=True)).verdict == "go"
    assert (await ledger.permit_call(claim, group="enrich")).verdict == "unconfirmed"
    with pytest.raises(TooFewReplicasError):
        await confirm(client, 2)

    box.send(replica, signal.SIGCONT)
    await eventually(lambda: is_confirmed(client, 2))
    # delivered again it is known, and durable now
    (again,) = await accepter.accept(event("ev_2", object_id="lead_other"), [wanted(object_id="lead_other")])
    assert again.result == "duplicate"
    assert (await ledger.permit_call(claim, group="enrich")).verdict == "go"
