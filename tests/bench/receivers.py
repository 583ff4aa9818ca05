"""Receivers to compare: `web`, each with a Redis of its own, and an app that only reads, all on one core.

What loads them, and Redis, share the other cores. Redis has an append-only file, synced every second. It
is not rewritten meanwhile, as that comes by size, in the middle of any round.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import redis
import redis.asyncio
from receiver_box import FIELDS, KEY, ORGANIZATION
from stack_parts import HeldPort, Processes
from waiting import wait_until

from service import keys
from service.cli.processes import request_json
from service.enrichment import entry_id
from service.log import get_logger
from service.schema_cache import SchemaCache
from service.settings_values import WEBHOOK_PATH
from tests.bench.deliveries import lead_id
from tests.bench.measure import cpu_seconds
from tests.bench.redis_server import bench_redis
from tests.bench.rounds import Took
from tests.bench.wrk import CONNECTIONS, send_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from service.rules import ObjectType
    from tests.bench.deliveries import Batch

RULES = """
version: 1
defaults: {settle: 0s}
rules:
  - {name: Pitch, object: lead, field: Pitch}
  - {name: Size, object: lead, field: Size}
  - {name: Segment, object: lead, field: Segment}
"""
LEAD_FIELDS: Mapping[str, str] = FIELDS["lead"]
"""The ids and names of the fields in Close."""

START_SECONDS = 60.0
REWRITE_SECONDS = 120.0
LONG_AGO_MS = 1
AT_ONCE = 1000


@dataclass(slots=True, kw_only=True)
class Receiver:
    """One that answers deliveries.

    Attributes:
        port: of 127.0.0.1.
        start: starts its process, instead of the one there is, and returns the id once it answers.
        pid: its process.
        redis: where it puts what it accepts; None where it only reads.
        redis_url: that server.
        fields: ids and names of the fields that Close has; a lead's rules are for some of them.
    """

    port: int
    start: Callable[[], int]
    pid: int = field(init=False)
    redis: redis.Redis | None = None
    redis_url: str = ""
    fields: Mapping[str, str]

    def __post_init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin anew with another process: where its memory lies makes one a sixth slower than the next."""
        self.pid = self.start()

    def take(self, batch: Batch, *, connections: int = CONNECTIONS) -> Took:
        """Send a batch, as fast as it is answered over so many connections.

        Raises:
            TookTooLongError: not all were answered.
            RuntimeError: an answer was another than expected.
        """
        before = self._cpu_seconds()
        sent = send_all(batch.path, port=self.port, connections=connections)
        web, redis_server = (after - one for after, one in zip(self._cpu_seconds(), before, strict=True))
        expected = 202 if self.redis is None else batch.status
        if sent.statuses != {expected: len(batch.numbers)}:
            raise RuntimeError(f"expected {len(batch.numbers)} answers of {expected}, got {sent.statuses}")
        return Took(
            deliveries=len(batch.numbers),
            seconds=sent.seconds,
            web_cpu_seconds=web,
            redis_cpu_seconds=redis_server,
        )

    def check_planned(self, numbers: range, *, fields: int) -> None:
        """See in Redis that each of these leads has that many entries.

        Raises:
            RuntimeError: it has not.
        """
        if self.redis is None:
            raise ValueError("a receiver that only reads plans nothing")
        names = [
            keys.entry(entry_id(organization_id=ORGANIZATION, object_id=lead_id(number), field_id=field))
            for number in numbers
            for field in self.fields
        ]
        found = sum(
            self.redis.exists(*names[start : start + AT_ONCE]) for start in range(0, len(names), AT_ONCE)
        )
        if found != fields * len(numbers):
            raise RuntimeError(f"{len(numbers)} events of {fields} fields are {found} entries in Redis")

    def forget(self) -> None:
        """Empty its Redis, but for what a service that has run for long has there."""
        if self.redis is not None:
            kept = {key: self.redis.get(key) for key in (keys.SINCE, *self.redis.scan_iter(keys.schema("*")))}
            self.redis.flushdb()
            self.redis.mset(kept)

    def _cpu_seconds(self) -> tuple[float, float]:
        if self.redis is None:
            return cpu_seconds(self.pid), 0.0
        used = self.redis.info("cpu")
        return cpu_seconds(self.pid), used["used_cpu_user"] + used["used_cpu_sys"]


class Receivers(contextlib.ExitStack):
    """Starts receivers, and ends them all when the `with` block does.

    Args:
        directory: for rules, logs and data.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        self._first, *self._others = sorted(os.sched_getaffinity(0))
        self._processes = self.enter_context(_processes(directory))
        self.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
        self._load_elsewhere(0)

    def bare(self) -> Receiver:
        """The app that only reads, see `tests.bench.bare_app`."""
        port = self.enter_context(HeldPort()).number

        def start() -> int:
            return self._started("bare", WEBHOOK_PATH, port, str(port), module="tests.bench.bare_app")

        return Receiver(port=port, start=start, fields={})

    def web(
        self, name: str, *, rules: str = RULES, fields: Mapping[str, str] = LEAD_FIELDS, waiting: int = 0
    ) -> Receiver:
        """`close-enrich web`, and a Redis.

        Args:
            name: tells its files apart.
            rules: the text of the rules file.
            fields: ids and names of the fields that leads have in Close.
            waiting: how many enrichments wait in the queue.
        """
        # here, as Redis and rules need a loop and modules that the other suites do without
        from tests.bench.preload import preload  # noqa: PLC0415

        directory = self._directory / name
        directory.mkdir()
        server = self.enter_context(bench_redis(directory))
        client = self.enter_context(redis.Redis.from_url(server.url))
        if server.process is None:
            raise RuntimeError("Redis does not run")
        self._load_elsewhere(server.process.pid)
        _as_if_old(client, server.url, fields)
        if waiting:
            with _unlogged(client):
                preload(server.url, waiting, fields=fields)
        client.config_set("auto-aof-rewrite-percentage", 0)
        (directory / "rules.yaml").write_text(rules)
        port = self.enter_context(HeldPort()).number

        def start() -> int:
            return self._started(
                f"web-{name}",
                "/livez",
                port,
                "web",
                REDIS_URL=server.url,
                CLOSE_SIGNATURE_KEYS=KEY,
                RULES_FILE=directory / "rules.yaml",
                PORT=port,
                LOG_FORMAT="json",
                LOG_LEVEL="warning",
            )

        return Receiver(port=port, start=start, redis=client, redis_url=server.url, fields=fields)

    def _started(self, name: str, path: str, port: int, *arguments: str, **options: Any) -> int:
        """A process on the first core, instead of the one of that name; it answers on the path."""
        with contextlib.suppress(KeyError):
            self._processes.kill(name)
        pid = self._processes.start(name, *arguments, **options)
        os.sched_setaffinity(pid, {self._first})
        wait_until(lambda: _listens(port, path=path), seconds=START_SECONDS)
        return pid

    def check(self) -> None:
        """Raise RuntimeError, with the log, where a process has ended."""
        self._processes.check()

    def _load_elsewhere(self, pid: int) -> None:
        os.sched_setaffinity(pid, set(self._others) or {self._first})


@contextlib.contextmanager
def _processes(directory: Path) -> Iterator[Processes]:
    processes = Processes(directory, {})
    try:
        yield processes
    finally:
        processes.close()


@contextlib.contextmanager
def _unlogged(client: redis.Redis) -> Iterator[None]:
    """No append-only file meanwhile; afterwards everything is in a new one."""
    client.config_set("appendonly", "no")
    yield
    client.config_set("appendonly", "yes")
    wait_until(
        lambda: (
            not (found := client.info("persistence"))["aof_rewrite_in_progress"]
            and not found["aof_rewrite_scheduled"]
        ),
        seconds=REWRITE_SECONDS,
    )


def _as_if_old(client: redis.Redis, url: str, fields: Mapping[str, str]) -> None:
    """Since when Redis remembers, and Close's fields: without these, a first start is measured."""
    client.set(keys.SINCE, LONG_AGO_MS)

    async def fetch(object_type: ObjectType) -> bytes:
        of_this = [
            {"id": field_id, "name": name, "type": "text"}
            for field_id, name in fields.items()
            if object_type == "lead"
        ]
        return json.dumps(
            {"object_type": object_type, "organization_id": ORGANIZATION, "fields": of_this}
        ).encode()

    async def save() -> None:
        async with redis.asyncio.Redis.from_url(url) as connection:
            await SchemaCache(connection, fetch=fetch, log=get_logger("bench")).load()

    asyncio.run(save())


def _listens(port: int, *, path: str = "/livez") -> bool:
    try:
        request_json("POST" if path == WEBHOOK_PATH else "GET", f"http://127.0.0.1:{port}{path}", {})
    except OSError:
        return False
    return True
