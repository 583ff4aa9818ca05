"""Pages and calls ask Redis for as little, however much there is; Redis itself counts commands and bytes."""

import re
from urllib.parse import urlencode

import msgspec
import pytest
import redis
import redis.asyncio
from big_ledger import fill
from dashboard_box import NOW, Box

from service import keys
from service.dashboard.contents import ROUTES
from service.dashboard.pages_overview import live_regions
from service.dashboard.routes import Call, Page

ENTRIES, HISTORY = 20_000, 100_000
MOST_COMMANDS = 800
MOST_BYTES = 400_000
"""What Redis sends for one page: some hundred rows of some hundred bytes.

Ten times as much where what needs a person is counted by rule, among the first 5,000 of each kind at most.
"""

SAMPLES = {"record_id": "lead_1", "quarantine_id": "1-1", "ids": "1-1", "field_id": "cf_1"}
"""What stands in for the parts of a path, and what a query must say; a new one is added here."""

READING = [one for one in ROUTES if isinstance(one, Page) or (isinstance(one, Call) and one.method == "GET")]


@pytest.fixture(scope="module")
def numbers(redis_server):
    """A server with a large ledger, which counts what it is asked."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        client.set(keys.SINCE, 1)
        fill(client, entries=ENTRIES, history=HISTORY, now_seconds=NOW)
        yield client
        client.flushall()


@pytest.fixture
async def box(redis_server):
    client = redis.asyncio.Redis.from_url(redis_server.url)
    yield Box(client)
    await client.aclose()


def counted(client):
    stats = client.info("stats")
    return stats["total_commands_processed"], stats["total_net_output_bytes"]


def path_of(route):
    path = re.sub(r"\{(\w+)(?::\w+)?\}", lambda match: SAMPLES[match[1]], route.path)
    asked = () if route.asks is None else msgspec.structs.fields(route.asks)
    query = {
        one.name: SAMPLES[one.name] for one in asked if one.required and f"{{{one.name}}}" not in route.path
    }
    return f"{path}?{urlencode(query)}" if query else path


@pytest.mark.parametrize("route", READING, ids=lambda route: route.path)
async def test_a_page_asks_for_a_bounded_number_of_rows(route, box, numbers):
    script = box.script()
    await script.get(path_of(route))
    before = counted(numbers)
    answer = await script.get(path_of(route))
    after = counted(numbers)
    assert answer.status == 200, answer.raw[:300]
    assert box.reports == []
    times = 10 if "/attention" in route.path else 1
    assert after[0] - before[0] <= times * MOST_COMMANDS
    assert after[1] - before[1] <= times * MOST_BYTES


async def test_one_look_for_the_live_numbers_is_bounded_too(box, numbers):
    before = counted(numbers)
    regions = await live_regions(box.desk, box.site._look)
    after = counted(numbers)
    assert "Newest results" in regions["live-newest"]
    assert after[0] - before[0] <= MOST_COMMANDS
    assert after[1] - before[1] <= MOST_BYTES
