"""Reading records: one read for all who ask at about the same time, and never a stale or unfit one."""

import asyncio

import pytest

from service.rules import ObjectType
from workers.records import FRESH_SECONDS, MOST_NAMED_FIELDS, READ_TIMEOUT_SECONDS, RecordReader
from workers.reply import Failure, FailureKind, Reply

LEAD, CONTACT = ObjectType.LEAD, ObjectType.CONTACT
FIELDS = frozenset({"id", "custom.cf_1"})


class Close:
    """Stands for `CloseApi.get_record`: answers each read with its number, once it is let."""

    def __init__(self) -> None:
        self.reads: list[dict[str, object]] = []
        self.results: list[Reply | Failure | Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def get_record(self, **arguments) -> Reply | Failure:
        self.reads.append(arguments)
        number = len(self.reads)
        await self.gate.wait()
        result = self.results.pop(0) if self.results else make_reply(body=str(number).encode())
        if isinstance(result, Exception):
            raise result
        return result


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make_reply(*, status=200, body=b"{}") -> Reply:
    return Reply(status=status, headers={}, body=body)


@pytest.fixture
def close() -> Close:
    return Close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reader(close, clock) -> RecordReader:
    return RecordReader(close, pace=None, clock=clock)


async def read(reader, *, object_id="lead_1", object_type=LEAD, fields=FIELDS, **options) -> bytes:
    result = await reader.read(object_type=object_type, object_id=object_id, fields=fields, **options)
    assert isinstance(result, Reply)
    return result.body


async def turn() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_read_names_the_record_and_its_fields_in_order(reader, close):
    await read(reader, fields=frozenset({"url", "id", "custom.cf_1"}))
    assert close.reads == [
        {
            "object_type": LEAD,
            "object_id": "lead_1",
            "fields": ["custom.cf_1", "id", "url"],
            "timeout_seconds": READ_TIMEOUT_SECONDS,
        }
    ]


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        (None, None),
        (frozenset(f"custom.cf_{n}" for n in range(MOST_NAMED_FIELDS + 1)), None),
        (frozenset({"id"}), ["id"]),
    ],
    ids=["all", "too many to name", "one"],
)
async def test_all_fields_are_read_where_they_cannot_be_named(reader, close, fields, asked):
    await read(reader, fields=fields)
    assert close.reads[0]["fields"] == asked


async def test_those_who_come_together_share_one_read(reader, close):
    close.gate.clear()
    waiting = [asyncio.create_task(read(reader)) for _ in range(5)]
    await turn()
    close.gate.set()
    assert await asyncio.gather(*waiting) == [b"1"] * 5
    assert len(close.reads) == 1


@pytest.mark.parametrize(
    ("passed_seconds", "answer"), [(0, b"1"), (FRESH_SECONDS, b"1"), (FRESH_SECONDS + 0.001, b"2")]
)
async def test_a_read_is_shared_for_a_few_seconds_from_its_start(reader, clock, passed_seconds, answer):
    await read(reader)
    clock.now += passed_seconds
    assert await read(reader) == answer


@pytest.mark.parametrize(
    ("most_age_seconds", "passed_seconds", "answer"),
    [
        (0.0, 0.001, b"2"),
        (1.0, 1.0, b"1"),
        (1.0, 1.001, b"2"),
        (60.0, FRESH_SECONDS, b"1"),
        (60.0, FRESH_SECONDS + 0.001, b"2"),
    ],
)
async def test_who_asks_says_how_old_a_read_may_be_at_most(
    reader, clock, most_age_seconds, passed_seconds, answer
):
    await read(reader)
    clock.now += passed_seconds
    assert await read(reader, most_age_seconds=most_age_seconds) == answer


async def test_who_needs_a_fresh_read_gets_one_and_the_next_ones_share_it(reader, close, clock):
    close.gate.clear()
    early = asyncio.create_task(read(reader))
    await turn()
    clock.now += 0.001
    late = asyncio.create_task(read(reader, most_age_seconds=0.0))
    await turn()
    close.gate.set()
    assert await asyncio.gather(early, late, read(reader)) == [b"1", b"2", b"2"]


@pytest.mark.parametrize(
    ("first", "then", "shared"),
    [
        (FIELDS, frozenset({"id"}), True),
        (FIELDS, FIELDS, True),
        (None, FIELDS, True),
        (None, None, True),
        (FIELDS, frozenset({"id", "url"}), False),
        (FIELDS, None, False),
    ],
)
async def test_a_read_is_shared_only_with_those_whose_fields_it_covers(reader, first, then, shared):
    await read(reader, fields=first)
    assert await read(reader, fields=then) == (b"1" if shared else b"2")


@pytest.mark.parametrize("other", [{"object_id": "lead_2"}, {"object_type": CONTACT}])
async def test_another_record_is_another_read(reader, other):
    await read(reader)
    assert await read(reader, **other) == b"2"


@pytest.mark.parametrize(
    "bad", [make_reply(status=429), make_reply(status=503), Failure(kind=FailureKind.CONNECT)]
)
async def test_a_read_that_failed_is_not_shared_with_who_comes_back_later(reader, close, bad):
    close.results = [bad]
    assert await reader.read(object_type=LEAD, object_id="lead_1", fields=FIELDS) is bad
    assert await read(reader) == b"2"


async def test_an_unforeseen_error_reaches_who_waits_and_no_one_after(reader, close):
    close.results = [RuntimeError("a bug")]
    with pytest.raises(RuntimeError, match="a bug"):
        await read(reader)
    assert await read(reader) == b"2"


async def test_who_is_cancelled_takes_the_reply_from_nobody(reader, close):
    close.gate.clear()
    first, second = asyncio.create_task(read(reader)), asyncio.create_task(read(reader))
    await turn()
    first.cancel()
    await turn()
    assert first.cancelled()
    close.gate.set()
    assert await second == b"1"
    assert len(close.reads) == 1


async def test_a_read_that_was_itself_cancelled_is_made_anew(reader, close):
    close.gate.clear()
    waiting = asyncio.create_task(read(reader))
    await turn()
    (under_way,) = reader._reads.values()
    under_way.reply.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    close.gate.set()
    assert await read(reader) == b"2"


async def test_old_reads_are_forgotten_even_when_one_record_is_read_again_and_again(reader, clock):
    for number in range(100):
        await read(reader, object_id="busy", most_age_seconds=0.0)
        await read(reader, object_id=f"lead_{number}")
        clock.now += 1
    assert len(reader._reads) <= 2 * (FRESH_SECONDS + 1)


async def test_a_read_that_has_not_ended_is_not_forgotten(reader, close, clock):
    close.gate.clear()
    slow = asyncio.create_task(read(reader))
    await turn()
    clock.now += 10 * FRESH_SECONDS
    other = asyncio.create_task(read(reader, object_id="lead_2"))
    await turn()
    assert len(reader._reads) == 2
    close.gate.set()
    assert await asyncio.gather(slow, other) == [b"1", b"2"]
