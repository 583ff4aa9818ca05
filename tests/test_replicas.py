"""`REDIS_WAIT_REPLICAS` on a Redis that has none: nothing is accepted, and no call leaves."""

from __future__ import annotations

import pytest
from ledger_box import LedgerBox, event, wanted
from receiver_box import KEY, Receiver, sample, save_schemas, signed

from service.accept import Accepter, StoreUnavailableError
from service.ledger import Ledger
from service.replicas import TooFewReplicasError, confirm


@pytest.mark.parametrize("known", [True, False])
def test_a_delivery_that_no_replica_has_is_answered_503_and_comes_again(redis_url, known):
    if known:
        save_schemas(redis_url)
    unreadable = b'{"event": 1}'
    with Receiver(redis_url, REDIS_WAIT_REPLICAS="1") as receiver:
        assert [receiver.post(body).status for body in (sample("02"), unreadable)] == [503, 503]
    with Receiver(redis_url) as receiver:
        assert receiver.post(sample("02")).status == 202
        assert receiver.post(unreadable, signed(unreadable, key=KEY)).status == 202


async def test_what_no_replica_has_is_not_accepted_and_known_when_it_comes_again(async_redis):
    with pytest.raises(StoreUnavailableError, match="TooFewReplicasError"):
        await Accepter(async_redis, wait_replicas=1).accept(event(), [wanted()])
    (again,) = await Accepter(async_redis).accept(event(), [wanted()])
    assert again.result == "duplicate"


async def test_a_script_that_redis_has_forgotten_is_sent_again_with_the_wait(async_redis):
    accepter = Accepter(async_redis, wait_replicas=1)
    for number in range(2):
        with pytest.raises(StoreUnavailableError, match="TooFewReplicasError"):
            await accepter.accept(event(f"ev_{number}"), [wanted(f"cf_{number}")])
        await async_redis.script_flush()
    assert len(await LedgerBox(async_redis).ledger.entries_of("lead_1")) == 2


async def test_a_call_that_no_replica_knows_of_does_not_leave(async_redis):
    box = LedgerBox(async_redis)
    claim = await box.claim((await box.plan()).id)
    ledger = Ledger(async_redis, wait_replicas=1)
    assert (await ledger.permit_call(claim, group="enrich", only_ask=True)).verdict == "go"
    assert (await ledger.permit_call(claim, group="enrich")).verdict == "unconfirmed"


async def test_waiting_for_no_replicas_is_no_wait(async_redis):
    await confirm(async_redis, 0)
    with pytest.raises(TooFewReplicasError, match="0 of 1 replicas"):
        await confirm(async_redis, 1)
