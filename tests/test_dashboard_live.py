"""Live numbers: one look for all who listen, nothing twice, and an end."""

import asyncio

import msgspec
import pytest
from dashboard_box import Box
from redis.exceptions import ConnectionError as RedisAwayError

from service.dashboard import live as live_module
from service.dashboard.access import Visitor
from service.dashboard.live import Live

SCRIPT = Visitor(bearer=True)


class Source:
    """What is looked at, and how often it was."""

    def __init__(self):
        self.regions = {"live-a": "1", "live-b": "1"}
        self.looks = 0
        self.error = None

    async def __call__(self):
        self.looks += 1
        if self.error is not None:
            raise self.error
        return dict(self.regions)


@pytest.fixture
def source():
    return Source()


@pytest.fixture
def reports():
    return []


@pytest.fixture
async def live(source, reports):
    live = Live(source, report=lambda what, error: reports.append((what, error)), every_seconds=0.01)
    yield live
    await live.close()


@pytest.fixture
def access(async_redis):
    return Box(async_redis).access


class Listener:
    """One browser's stream."""

    def __init__(self, live, access, visitor=SCRIPT):
        self.response = live.response(visitor, access)
        self.stream = aiter(self.response.body_iterator)

    async def news(self):
        while True:
            chunk = await asyncio.wait_for(anext(self.stream), 5)
            if chunk.startswith(b"data: "):
                return msgspec.json.decode(chunk.removeprefix(b"data: "))

    async def ended(self):
        async for _ in self.stream:
            pass
        return True


async def test_the_first_look_brings_everything_and_later_ones_what_has_changed(live, access, source):
    listener = Listener(live, access)
    assert await listener.news() == {"live-a": "1", "live-b": "1"}
    assert await listener.news() == {}
    source.regions["live-b"] = "2"
    while not (news := await listener.news()):
        pass
    assert news == {"live-b": "2"}
    assert listener.response.headers["cache-control"] == "no-store"
    assert listener.response.media_type == "text/event-stream"


async def test_many_listeners_share_each_look(live, access, source):
    listeners = [Listener(live, access) for _ in range(20)]
    for _ in range(5):
        await asyncio.gather(*(one.news() for one in listeners))
    assert live.listeners == 20
    assert 5 <= source.looks == live.looks < 20


async def test_nobody_looks_once_nobody_listens(live, access, source):
    listener = Listener(live, access)
    await listener.news()
    await listener.stream.aclose()
    assert live.listeners == 0
    await asyncio.wait_for(asyncio.shield(live._looking), 5)
    looks = source.looks
    # the look after this one is not to come before this one is heard of
    live._every_seconds = 60.0
    again = Listener(live, access)
    assert await again.news() == {"live-a": "1", "live-b": "1"}
    assert source.looks == looks + 1


async def test_whoever_comes_later_is_never_told_what_was_so_before(live, access, source):
    first = Listener(live, access)
    await first.news()
    source.regions["live-a"] = "2"
    while "live-a" not in await first.news():
        pass
    source.regions["live-a"] = "3"
    second = Listener(live, access)
    assert (await second.news())["live-a"] == "3"
    for one in (first, second):
        await one.stream.aclose()
    await asyncio.wait_for(asyncio.shield(live._looking), 5)
    source.error = RedisAwayError()
    assert await Listener(live, access).news() == {}


async def test_there_are_only_so_many_listeners(live, access, monkeypatch):
    monkeypatch.setattr(live_module, "MOST_LISTENERS", 2)
    listeners = [Listener(live, access) for _ in range(2)]
    for one in listeners:
        await one.news()
    refused = live.response(SCRIPT, access)
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "30"


async def test_a_stream_ends_with_its_session(live, async_redis):
    box = Box(async_redis)
    browser = await box.browser()
    visitor = box.access._visitor(browser.cookies["close-enrich"])
    listener = Listener(live, box.access, visitor)
    await listener.news()
    await box.access.log_out(visitor)
    assert await asyncio.wait_for(listener.ended(), 5)
    assert live.listeners == 0


async def test_a_look_that_fails_ends_nothing(live, access, source, reports):
    listener = Listener(live, access)
    await listener.news()
    source.error = RedisAwayError()
    assert await listener.news() == {}
    assert reports == []
    source.error = ValueError("a mistake")
    while not reports:
        assert await listener.news() == {}
    source.error = None
    source.regions["live-a"] = "3"
    while not (news := await listener.news()):
        pass
    assert news == {"live-a": "3"}


async def test_streams_end_when_the_process_stops(live, access):
    listener = Listener(live, access)
    await listener.news()
    await live.close()
    assert await asyncio.wait_for(listener.ended(), 5)
    assert live.response(SCRIPT, access).status_code == 503
