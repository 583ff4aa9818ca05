"""A real service of Sentinels: clients find the master, and find it anew when it is gone."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import time

import pytest
import redis
from ledger_box import LedgerBox, event, wanted
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff
from sentinel_box import SentinelBox
from waiting import Standstill, eventually, wait_until

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
    # what has run is not sent again because its answer is late
    made = redis_client(box.url(), retry=PATIENT)
    yield made
    await made.aclose()


async def test_clients_go_on_with_the_replica_that_takes_over(box, client):
    script = client.register_script("return redis.call('INCR', KEYS[1])")
    pooled = redis_client(box.url(), retry=PATIENT, most_connections=2)
    with blocking_redis_client(box.url()) as blocking:
        assert (await script(keys=["n"]), await pooled.incr("n"), blocking.incr("n")) == (1, 2, 3)
        await eventually(lambda: is_confirmed(client, 2))
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
    await eventually(lambda: answers(hasty))
    # a Sentinel that hangs, asked first, and a master that hangs: neither costs more than the time allowed
    box.send(box.sentinel_ports[0], signal.SIGSTOP)
    box.send(box.master_port(), signal.SIGSTOP)
    longest = 0.0
    while True:
        begun = time.monotonic()
        with Standstill() as standstill:
            try:
                await hasty.incr("n")
            except redis.RedisError:
                took_seconds = time.monotonic() - begun
            else:
                break
        longest = max(longest, took_seconds - standstill.seconds)
    assert 0 < longest < 1.5
    await hasty.aclose()


async def answers(client):
    with contextlib.suppress(redis.RedisError):
        return await client.ping()
    return False


async def test_a_demoted_master_is_left_for_the_new_one(box, client):
    assert await client.incr("n") == 1
    before = box.master_port()
    await eventually(lambda: is_confirmed(client, 2))
    await asyncio.to_thread(box.demote_master)
    await asyncio.to_thread(wait_until, lambda: box.master_port() != before)
    await asyncio.to_thread(wait_until, lambda: box.role(before) == "slave")
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

    async def refusal():
        with pytest.raises(redis.RedisError) as error:
            await client.ping()
        return None if is_late(error.value) else error.value

    error = await eventually(refusal)
    await client.aclose()
    assert trouble(error).startswith(words)
    with blocking_redis_client(change(box)) as blocking:

        def refusal_of_blocking():
            with pytest.raises(redis.RedisError) as error:
                blocking.ping()
            return None if is_late(error.value) else error.value

        error = wait_until(refusal_of_blocking)
    assert trouble(error).startswith(words)
    assert "hunter" not in str(error)


def is_late(error):
    """Whether the answer was only too slow to come, as on a busy machine it may be."""
    return "Timeout" in trouble(error)


async def test_what_replicas_do_not_confirm_is_not_accepted_and_not_called(box, client):
    accepter = Accepter(client, wait_replicas=2)
    numbers = itertools.count()

    async def planned():
        # replicas may be slow for a moment: another lead then
        name = f"lead_{next(numbers)}"
        with contextlib.suppress(StoreUnavailableError):
            return await accepter.accept(event(f"ev_{name}", object_id=name), [wanted(object_id=name)])

    (accepted,) = await eventually(planned)
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
    async def delivered_again():
        with contextlib.suppress(StoreUnavailableError):
            return await accepter.accept(
                event("ev_2", object_id="lead_other"), [wanted(object_id="lead_other")]
            )

    (again,) = await eventually(delivered_again)
    assert again.result == "duplicate"

    async def permitted():
        verdict = (await ledger.permit_call(claim, group="enrich")).verdict
        return verdict != "unconfirmed" and verdict

    assert await eventually(permitted) == "go"
