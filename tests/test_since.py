"""A complete loss of Redis is noticed, and what is planned after it knows that a call may be under way."""

from __future__ import annotations

import pytest
from ledger_box import LedgerBox, event, id_of, wanted
from msgspec import structs

from service import keys
from service.accept import UNSURE_MS
from service.rules import Mode
from service.since import note_since

CREATED_MS = 1_791_970_212_000
"""When `event()` happened at Close."""


@pytest.fixture
def box(async_redis):
    return LedgerBox(async_redis)


async def lose_all(box, *, noticed_ms=None):
    """As after a complete loss, noticed then, or not yet."""
    await box.redis.flushall()
    if noticed_ms is not None:
        await box.redis.set(keys.SINCE, noticed_ms)


async def test_the_note_is_made_once(async_redis):
    await async_redis.delete(keys.SINCE)
    assert await note_since(async_redis)
    noted = await async_redis.get(keys.SINCE)
    assert not await note_since(async_redis)
    assert await async_redis.get(keys.SINCE) == noted


async def test_an_event_after_a_loss_that_nobody_has_noticed_notices_it(box):
    await lose_all(box)
    before_ms = await box.now_ms()
    entry = await box.plan()
    assert entry.lost_ms is not None
    assert before_ms <= entry.lost_ms <= await box.now_ms()
    assert int(await box.redis.get(keys.SINCE)) == entry.lost_ms
    assert (await box.entry((await box.plan(field_id="cf_2")).id)).lost_ms == entry.lost_ms


async def test_its_fences_are_none_of_its_former_life(box):
    before = await box.claim((await box.plan()).id)
    await lose_all(box)
    after = await box.claim((await box.plan()).id)
    assert after.fence > before.fence
    assert await box.ledger.heartbeat({before.entry.id: before.fence}) == [before.entry.id]
    assert (await box.ledger.permit_call(before, group="enrich")).verdict == "fenced"
    assert not await box.settle(before)
    assert (await box.ledger.permit_call(after, group="enrich")).verdict == "go"
    assert await box.settle(after)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("2026-10-14T09:30:12.388000", 1_791_970_212_388),
        ("2026-10-14T09:30:12", 1_791_970_212_000),
        ("2026-10-14 09:30:12.5Z", 1_791_970_212_500),
        ("2024-02-29T23:59:59.999+00:00", 1_709_251_199_999),
        ("2000-03-01T00:00:00", 951_868_800_000),
        ("1970-01-01T00:00:00", 0),
    ],
)
@pytest.mark.parametrize("after_ms", [0, 1])
async def test_when_a_record_was_created_counts_to_the_millisecond(
    box, monkeypatch, text, milliseconds, after_ms
):
    """A record that was there no later than the note may have been in a call."""
    # however long ago that was
    monkeypatch.setattr("service.accept.UNSURE_MS", 10**14)
    await lose_all(box, noticed_ms=milliseconds - after_ms)
    await box.accept(structs.replace(event(), date_created=text), wanted(mode=Mode.FILL))
    assert ((await box.entry(id_of())).lost_ms is not None) is (after_ms == 0)


@pytest.mark.parametrize(
    ("noticed_ms", "happened", "lost"),
    [
        pytest.param(-1, {}, True, id="a record from before"),
        pytest.param(-1, {"date_created": "2126-10-14T09:30:12.000000"}, False, id="a record from after"),
        pytest.param(-1, {"date_created": "2126-10-14T09:30:12.000000+00:00"}, False, id="with a zone"),
        pytest.param(-1, {"date_created": "yesterday"}, True, id="a date that cannot be read"),
        pytest.param(-1, {"date_created": "2126-02-30T09:30:12"}, True, id="a day that is none"),
        pytest.param(-1, {"date_created": "2126-00-10T09:30:12"}, True, id="a month that is none"),
        pytest.param(-1, {"date_created": "2126-10-14T24:30:12"}, True, id="an hour that is none"),
        pytest.param(-1, {"date_created": "2126-10-14T09:60:12"}, True, id="a minute that is none"),
        pytest.param(-1, {"date_created": "2126-10-14T09:30:60"}, True, id="a second that is none"),
        pytest.param(-1, {"date_created": "0001-01-01T00:00:00+14:00"}, True, id="a date before all dates"),
        pytest.param(-1, {"action": "updated", "date_created": "2126-10-14T09:30:12"}, True, id="a change"),
        pytest.param(UNSURE_MS, {}, False, id="a record from before, when all calls have ended"),
        pytest.param(UNSURE_MS, {"action": "updated"}, False, id="a change, when all calls have ended"),
    ],
)
async def test_only_what_may_have_been_in_a_call_is_told_of_the_loss(box, noticed_ms, happened, lost):
    noticed_ms = await box.now_ms() - max(0, noticed_ms)
    await lose_all(box, noticed_ms=noticed_ms)
    await box.accept(structs.replace(event(), **happened), wanted(mode=Mode.FILL))
    entry = await box.entry(id_of())
    assert entry.lost_ms == (noticed_ms if lost else None)
    assert (entry.fence > CREATED_MS) is lost
