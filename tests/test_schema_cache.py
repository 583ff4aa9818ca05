"""Close's custom field schemas, shared through Redis: read hourly by one, kept while Close is away."""

import asyncio

import msgspec
import pytest
import structlog
from receiver_box import ORGANIZATION, rulebook, schema_payload

from service import keys
from service.knowledge import Knowledge
from service.rules import ObjectType
from service.schema_cache import ASK_SECONDS, FRESH_SECONDS, RETRY_SECONDS, SchemaCache

LEAD, CONTACT = ObjectType.LEAD, ObjectType.CONTACT
ONLY_LEADS = frozenset({LEAD})


class Close:
    """Stands for Close's schema endpoint: counts questions, and answers when it may."""

    def __init__(self, *, answer=schema_payload) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.was_asked = asyncio.Event()

    async def __call__(self, object_type: ObjectType) -> bytes | None:
        self.asked.append(object_type.value)
        self.was_asked.set()
        await self.may_answer.wait()
        return self.answer(object_type)


def unreachable(_: ObjectType) -> None:
    return None


def cache(redis, close, log=None) -> SchemaCache:
    return SchemaCache(redis, fetch=close, log=log or structlog.get_logger())


async def set_age(redis, seconds: int, object_type=LEAD) -> None:
    """Make a stored schema older, or with a negative number younger than now."""
    stored = msgspec.json.decode(await redis.get(keys.schema(object_type)))
    stored["read_at_seconds"] -= seconds
    await redis.set(keys.schema(object_type), msgspec.json.encode(stored))


async def test_both_schemas_are_read_from_close_once_and_from_redis_by_everyone_after(async_redis):
    close, nobody = Close(), Close(answer=unreachable)
    read = await cache(async_redis, close).load()
    assert {kind: [field.name for field in schema.fields] for kind, schema in read.items()} == {
        LEAD: ["Pitch", "Size", "Segment"],
        CONTACT: ["Seniority"],
    }
    assert await cache(async_redis, nobody).load() == read
    assert (close.asked, nobody.asked) == (["lead", "contact"], [])


async def test_only_what_is_wanted_is_read(async_redis):
    close = Close()
    assert set(await cache(async_redis, close).load(ONLY_LEADS)) == {LEAD}
    assert close.asked == ["lead"]


@pytest.mark.parametrize(
    ("age_seconds", "asks"), [(0, False), (FRESH_SECONDS - 30, False), (FRESH_SECONDS, True), (-500, True)]
)
async def test_a_schema_is_read_anew_after_an_hour_or_when_its_time_makes_no_sense(
    async_redis, age_seconds, asks
):
    await cache(async_redis, Close()).load(ONLY_LEADS)
    await set_age(async_redis, age_seconds)
    changed = Close(answer=lambda kind: schema_payload(kind).replace(b"Pitch", b"Slogan"))
    for _ in range(2):  # the second look finds what the first one has written
        read = await cache(async_redis, changed).load(ONLY_LEADS)
        assert read[LEAD].fields[0].name == ("Slogan" if asks else "Pitch")
    assert changed.asked == ["lead"] * asks


async def test_while_close_is_away_an_old_schema_serves_and_close_is_not_pestered(async_redis):
    await cache(async_redis, Close()).load(ONLY_LEADS)
    await set_age(async_redis, 30 * FRESH_SECONDS)
    away = Close(answer=unreachable)
    for _ in range(3):
        assert set(await cache(async_redis, away).load(ONLY_LEADS)) == {LEAD}
    assert away.asked == ["lead"]
    assert 0 < await async_redis.ttl(keys.schema_asker(LEAD)) <= RETRY_SECONDS


async def test_without_close_and_without_a_cache_a_schema_is_missing_until_close_is_back(async_redis):
    assert await cache(async_redis, Close(answer=unreachable)).load() == {}
    back = Close()
    assert await cache(async_redis, back).load() == {}
    assert back.asked == []
    await async_redis.delete(keys.schema_asker(LEAD))  # as the passing of time would
    assert set(await cache(async_redis, back).load()) == {LEAD}


@pytest.mark.parametrize(
    "answer",
    [b"", b"<html>", b"[]", b'{"fields": 3}', b'{"object_type": "contact", "fields": []}', b"[" * 100_000],
)
async def test_an_answer_that_is_no_schema_is_not_kept_and_the_log_says_so(async_redis, answer):
    with structlog.testing.capture_logs() as lines:
        assert await cache(async_redis, Close(answer=lambda _: answer)).load(ONLY_LEADS) == {}
    assert [line["event"] for line in lines] == ["Close's custom fields were not understood"]
    assert not await async_redis.exists(keys.schema(LEAD))


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"\xff",
        b"{",
        b"[]",
        b'{"read_at_seconds": "now", "schema": {}}',
        b'{"read_at_seconds": 99999999999, "schema": {"fields": 1}}',
    ],
)
async def test_what_another_version_left_in_redis_is_no_schema(async_redis, stored):
    await async_redis.set(keys.schema(LEAD), stored)
    assert set(await cache(async_redis, Close()).load(ONLY_LEADS)) == {LEAD}


async def test_a_process_without_a_key_asks_nobody_and_keeps_nobody_from_asking(async_redis):
    assert await cache(async_redis, None).load() == {}
    read = await cache(async_redis, Close()).load()
    assert set(read) == {LEAD, CONTACT}
    await set_age(async_redis, 30 * FRESH_SECONDS)
    assert await cache(async_redis, None).load() == read


async def test_one_process_asks_close_and_the_others_do_not_wait_for_it(async_redis):
    slow = Close()
    slow.may_answer.clear()
    asker = asyncio.create_task(cache(async_redis, slow).load(ONLY_LEADS))
    await slow.was_asked.wait()
    assert RETRY_SECONDS < await async_redis.ttl(keys.schema_asker(LEAD)) <= ASK_SECONDS
    other = Close()
    assert await cache(async_redis, other).load(ONLY_LEADS) == {}
    assert other.asked == []
    slow.may_answer.set()
    assert set(await asker) == {LEAD}
    assert not await async_redis.exists(keys.schema_asker(LEAD))


async def test_knowledge_binds_the_rules_to_what_was_read(async_redis):
    knowledge = Knowledge.of(rulebook(), await cache(async_redis, Close()).load())
    assert knowledge.complete
    assert knowledge.organization_id == ORGANIZATION
    assert [one.field_id for one in knowledge.bindings.bound] == [
        "cf_pitch",
        "cf_size",
        "cf_segment",
        "cf_seniority",
    ]
