"""Deliveries nobody could read are kept for a person: the newest ones, and of each the start."""

import pytest
import redis.asyncio
from redis.exceptions import RedisError

from service import keys
from service.embedded_redis import EmbeddedRedis
from service.quarantine import (
    MOST_BODY_BYTES,
    MOST_KEPT,
    PAGE,
    Quarantined,
    Retried,
    drop_quarantined,
    is_quarantine_id,
    list_quarantined,
    quarantine,
    quarantined_ids,
    read_quarantined,
    retry_quarantined,
)


async def test_the_newest_is_listed_first_with_its_reason_and_size(async_redis):
    first = await quarantine(async_redis, body=b"\xff\x00", reason="a string is not UTF-8")
    second = await quarantine(async_redis, body=b"", reason="Input data was truncated")
    assert await list_quarantined(async_redis) == [
        Quarantined(id=second, reason="Input data was truncated", size_bytes=0, body=b""),
        Quarantined(id=first, reason="a string is not UTF-8", size_bytes=2, body=b"\xff\x00"),
    ]
    assert [one.id for one in await list_quarantined(async_redis, most=1)] == [second]


async def test_nothing_kept_is_an_empty_list(async_redis):
    assert await list_quarantined(async_redis) == []


async def test_of_a_long_body_the_start_is_kept_and_the_whole_size_told(async_redis):
    body = b"a" * MOST_BODY_BYTES + b"b" * 1000
    await quarantine(async_redis, body=body, reason="too odd")
    (kept,) = await list_quarantined(async_redis)
    assert (kept.body, kept.size_bytes) == (b"a" * MOST_BODY_BYTES, len(body))


async def test_no_more_are_kept_than_a_person_would_look_through(async_redis):
    for number in range(MOST_KEPT + 250):
        newest = await quarantine(async_redis, body=b"%d" % number, reason="odd")
    # Redis drops old ones in blocks of a hundred
    assert MOST_KEPT <= await async_redis.xlen(keys.QUARANTINE) <= MOST_KEPT + 100
    assert (await list_quarantined(async_redis, most=1))[0].id == newest


def test_a_body_is_not_shown_by_accident():
    kept = Quarantined(id="1-0", reason="odd", size_bytes=11, body=b"Marisol Venn")
    assert "Marisol" not in repr(kept)


async def test_what_cannot_be_kept_is_an_error(tmp_path):
    with EmbeddedRedis(tmp_path) as server:
        client = redis.asyncio.Redis.from_url(server.url)
        server.kill()
        with pytest.raises(RedisError):
            await quarantine(client, body=b"", reason="odd")
        await client.aclose()


@pytest.mark.parametrize(
    ("written", "fits"), [("1791970212000-0", True), ("", False), ("-", False), ("1", False)]
)
def test_an_id_is_two_numbers(written, fits):
    assert is_quarantine_id(written) is fits


async def test_one_is_found_by_its_id_until_it_is_dropped(async_redis):
    kept_as = await quarantine(async_redis, body=b"odd", reason="odd")
    found = await read_quarantined(async_redis, kept_as)
    assert found == Quarantined(id=kept_as, reason="odd", size_bytes=3, body=b"odd")
    assert await drop_quarantined(async_redis, [kept_as, "1-1"]) == 1
    assert await read_quarantined(async_redis, kept_as) is None
    assert await drop_quarantined(async_redis, []) == 0


async def test_what_is_no_id_is_never_looked_for(async_redis):
    with pytest.raises(ValueError, match="a quarantine id is two numbers"):
        await read_quarantined(async_redis, "-")


async def test_all_ids_are_read_in_pages_oldest_first(async_redis):
    kept_as = [await quarantine(async_redis, body=b"", reason="odd") for _ in range(PAGE + 3)]
    assert await quarantined_ids(async_redis) == kept_as


async def test_a_retried_body_moves_to_the_backlog_whole_and_once(async_redis):
    body = b'\xff{"event":\x00}'
    kept_as = await quarantine(async_redis, body=body, reason="odd")
    answers = [await retry_quarantined(async_redis, kept_as) for _ in range(2)]
    assert answers == [Retried.RETRIED, Retried.GONE]
    assert await async_redis.lrange(keys.BACKLOG, 0, -1) == [body]
    assert await list_quarantined(async_redis) == []


@pytest.mark.parametrize(("extra", "answer"), [(0, Retried.RETRIED), (1, Retried.CUT)])
async def test_only_a_whole_body_can_be_retried(async_redis, extra, answer):
    kept_as = await quarantine(async_redis, body=b"a" * (MOST_BODY_BYTES + extra), reason="odd")
    kept = await read_quarantined(async_redis, kept_as)
    assert kept.whole is (answer is Retried.RETRIED)
    assert await retry_quarantined(async_redis, kept_as) is answer
    assert len(await list_quarantined(async_redis)) == extra
    assert await async_redis.llen(keys.BACKLOG) == 1 - extra
